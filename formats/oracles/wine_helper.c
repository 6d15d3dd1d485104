/* The Windows side of the Wine judge: reads "MODE PATH" lines, answers one line each.
 *
 * MODE "map" maps the file as an image; "library" loads it with DONT_RESOLVE_DLL_REFERENCES; "process" creates a
 * suspended process of it. Each then looks up every import of the mapped image. MODE "entry" creates a suspended
 * process, points its thread at two bytes that jump to themselves, clears its TLS callbacks, lets the loader run
 * and sees whether the thread comes to those bytes. No byte of the file is ever executed.
 * Answer: "ok BASE MISSING..." or "no CALL ERROR". */
#include <stdio.h>
#include <string.h>
#include <windows.h>
#include <winternl.h>

typedef NTSTATUS(NTAPI *query_t)(HANDLE, PROCESSINFOCLASS, PVOID, ULONG, PULONG);

static unsigned char *image;
static DWORD image_size;

static int headers(unsigned char *base, IMAGE_DATA_DIRECTORY *directory, int which, int *wide) {
    IMAGE_DOS_HEADER *dos = (void *)base;
    IMAGE_NT_HEADERS64 *nt = (void *)(base + dos->e_lfanew);
    IMAGE_NT_HEADERS32 *small = (void *)nt;
    *wide = nt->OptionalHeader.Magic == 0x20b;
    image_size = *wide ? nt->OptionalHeader.SizeOfImage : small->OptionalHeader.SizeOfImage;
    DWORD count = *wide ? nt->OptionalHeader.NumberOfRvaAndSizes : small->OptionalHeader.NumberOfRvaAndSizes;
    directory->VirtualAddress = directory->Size = 0;
    if ((DWORD)which < count)
        *directory = *wide ? nt->OptionalHeader.DataDirectory[which] : small->OptionalHeader.DataDirectory[which];
    return *wide;
}

/* The imports of the image at `image`, looked up in this process; prints what is missing, each behind a tab: eight DLLs
   and eight functions at most. */
static void look_up(void) {
    IMAGE_DATA_DIRECTORY directory;
    int wide, dlls = 0, functions = 0;
    headers(image, &directory, IMAGE_DIRECTORY_ENTRY_IMPORT, &wide);
    if (!directory.VirtualAddress || !directory.Size) return;
    IMAGE_IMPORT_DESCRIPTOR *entry = (void *)(image + directory.VirtualAddress);
    for (; entry->Name && entry->FirstThunk && dlls < 8; entry++) {
        const char *name = (const char *)(image + entry->Name);
        HMODULE module = LoadLibraryA(name);
        if (!module) {
            printf("\t%s", name);
            dlls++;
            continue;
        }
        DWORD table = entry->OriginalFirstThunk ? entry->OriginalFirstThunk : entry->FirstThunk;
        for (int i = 0; functions < 8; i++) {
            ULONGLONG value = wide ? ((ULONGLONG *)(image + table))[i] : ((DWORD *)(image + table))[i];
            if (!value) break;
            int by_ordinal = wide ? value >> 63 : value >> 31;
            const char *symbol = by_ordinal ? (const char *)(ULONG_PTR)(value & 0xffff)
                                            : (const char *)(image + (value & 0x7fffffff) + 2);
            if (GetProcAddress(module, symbol)) continue;
            if (by_ordinal) printf("\t%s!#%u", name, (unsigned)(value & 0xffff));
            else printf("\t%s!%s", name, symbol);
            functions++;
        }
    }
}

static int map(const WCHAR *path) {
    HANDLE file = CreateFileW(path, GENERIC_READ | GENERIC_EXECUTE, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) return printf("no CreateFileW %lu\n", GetLastError());
    HANDLE section = CreateFileMappingW(file, NULL, SEC_IMAGE | PAGE_READONLY, 0, 0, NULL);
    DWORD error = GetLastError();
    CloseHandle(file);
    if (!section) return printf("no CreateFileMappingW %lu\n", error);
    image = MapViewOfFile(section, FILE_MAP_READ, 0, 0, 0);
    error = GetLastError();
    CloseHandle(section);
    if (!image) return printf("no MapViewOfFile %lu\n", error);
    printf("ok %p", image);
    look_up();
    UnmapViewOfFile(image);
    return printf("\n");
}

static int library(const WCHAR *path) {
    HMODULE module = LoadLibraryExW(path, NULL, DONT_RESOLVE_DLL_REFERENCES);
    if (!module) return printf("no LoadLibraryExW %lu\n", GetLastError());
    image = (unsigned char *)module;
    printf("ok %p", image);
    look_up();
    FreeLibrary(module);
    return printf("\n");
}

static unsigned char *base_of(HANDLE process) {
    PROCESS_BASIC_INFORMATION basic;
    unsigned char *base = NULL;
    query_t query = (query_t)(void *)GetProcAddress(GetModuleHandleA("ntdll.dll"), "NtQueryInformationProcess");
    if (query(process, ProcessBasicInformation, &basic, sizeof basic, NULL)) return NULL;
    ReadProcessMemory(process, (char *)basic.PebBaseAddress + 2 * sizeof(void *), &base, sizeof base, NULL);
    return base;
}

static int clear_callbacks(HANDLE process, unsigned char *base) {
    static unsigned char head[4096];
    IMAGE_DATA_DIRECTORY directory;
    DWORD old;
    int wide;
    void *none = NULL;
    if (!ReadProcessMemory(process, base, head, sizeof head, NULL)) return 0;
    headers(head, &directory, IMAGE_DIRECTORY_ENTRY_TLS, &wide);
    if (!directory.VirtualAddress || !directory.Size) return 1;
    unsigned char *place = base + directory.VirtualAddress + offsetof(IMAGE_TLS_DIRECTORY, AddressOfCallBacks);
    return VirtualProtectEx(process, place, sizeof none, PAGE_READWRITE, &old) &&
           WriteProcessMemory(process, place, &none, sizeof none, NULL);
}

/* Lets the loader run up to a jump to itself that stands for the entry point. */
static int reach(PROCESS_INFORMATION *made, unsigned char *base) {
    static const unsigned char loop[] = {0xeb, 0xfe};
    static CONTEXT context __attribute__((aligned(16)));
    DWORD64 stop;
    DWORD code = 0;
    void *stub = VirtualAllocEx(made->hProcess, NULL, 4096, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
    if (!stub || !WriteProcessMemory(made->hProcess, stub, loop, sizeof loop, NULL))
        return printf("no VirtualAllocEx %lu\n", GetLastError());
    stop = (DWORD64)(ULONG_PTR)stub;
    context.ContextFlags = CONTEXT_FULL;
    if (!GetThreadContext(made->hThread, &context)) return printf("no GetThreadContext %lu\n", GetLastError());
    context.Rcx = stop;
    if (!clear_callbacks(made->hProcess, base) || !SetThreadContext(made->hThread, &context))
        return printf("no SetThreadContext %lu\n", GetLastError());
    ResumeThread(made->hThread);
    for (int i = 0; i < 4000; i++) {
        if (WaitForSingleObject(made->hProcess, 2) == WAIT_OBJECT_0) {
            GetExitCodeProcess(made->hProcess, &code);
            return printf("no entry %#lx\n", code);
        }
        SuspendThread(made->hThread);
        context.ContextFlags = CONTEXT_CONTROL;
        if (GetThreadContext(made->hThread, &context) && context.Rip == stop) return printf("ok %p\n", base);
        ResumeThread(made->hThread);
    }
    return printf("no entry 0x102\n");
}

static int process(WCHAR *path, int run) {
    STARTUPINFOW start = {.cb = sizeof start};
    PROCESS_INFORMATION made;
    DWORD flags = CREATE_SUSPENDED | CREATE_NO_WINDOW;
    if (!CreateProcessW(path, NULL, NULL, NULL, FALSE, flags, NULL, NULL, &start, &made))
        return printf("no CreateProcessW %lu\n", GetLastError());
    unsigned char *base = base_of(made.hProcess);
    if (!base) printf("no PEB 0\n");
    else if (run) reach(&made, base);
    else printf("ok %p\n", base);
    TerminateProcess(made.hProcess, 0);
    WaitForSingleObject(made.hProcess, 5000);
    CloseHandle(made.hThread);
    CloseHandle(made.hProcess);
    return 0;
}

int main(void) {
    static char line[4096];
    static WCHAR path[4096];
    SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        char *space = strchr(line, ' ');
        if (!space || !MultiByteToWideChar(CP_UTF8, 0, space + 1, -1, path, 4096)) break;
        *space = 0;
        if (!strcmp(line, "map")) map(path);
        else if (!strcmp(line, "library")) library(path);
        else process(path, !strcmp(line, "entry"));
        fflush(stdout);
    }
    return 0;
}
