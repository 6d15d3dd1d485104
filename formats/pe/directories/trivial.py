"""temp"""
from bytegen.formats.core.steps import FreeStep
from bytegen.formats.pe.plan import opener, proceed
from bytegen.formats.pe.spec import Directory, directory
def _free(plan, region, data):
    return FreeStep(region.start, region.end, None, region.path, "", lambda data: proceed(plan, region.end, data))
for n in "exports resources exceptions certificates relocs debug architecture global_pointer tls load_config bound_imports delay_imports clr".split():
    opener(n)(_free)
    directory(Directory(n, lambda t: 8, (lambda t, s: s) if n in ("certificates","relocs","debug","exceptions","load_config") else (lambda t,s: 8)))
directory(Directory("iat", lambda t: 4, lambda t,s: 0))
