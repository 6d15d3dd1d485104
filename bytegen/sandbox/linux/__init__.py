"""The Linux kernel as a static program sees it: loading, system calls, signals; no files, no network, no
processes.
"""
