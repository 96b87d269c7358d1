/* A program in C: no library, only the system calls of docs/syscalls.md. */

typedef unsigned long word;
typedef unsigned int handle;

/* The start information, as far as this program needs it: libipc/src/start.rs. */
struct start_info {
    word magic, pid, ppid, archive, archive_len, args, args_len;
    handle space, thread, inbox, procd, supervisor, console;
};

enum { SEND = 0 };                          /* libipc/abi/src/call.rs */
enum { IDENTIFY = 0 };                      /* libipc/src/service/mod.rs */
enum { CONSOLE_WRITE = 1, PROCD_EXIT = 4 }; /* methods, in the order of libipc/src/services */

/* send(to; -, label, data, len, -, 0; words): 0, or the error; the words of the reply take the place of those sent. */
static word send(handle to, word label, const void *data, word len, word words[4])
{
    register word rax __asm__("rax") = SEND | (word)to << 32;
    register word rsi __asm__("rsi") = label;
    register word rdx __asm__("rdx") = (word)data;
    register word r8 __asm__("r8") = len;
    register word r9 __asm__("r9") = 0;
    register word r10 __asm__("r10") = 0;
    register word r12 __asm__("r12") = words[0];
    register word r13 __asm__("r13") = words[1];
    register word r14 __asm__("r14") = words[2];
    register word r15 __asm__("r15") = words[3];
    __asm__ volatile("syscall"
                     : "+r"(rax), "+r"(rsi), "+r"(rdx), "+r"(r8),
                       "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15)
                     : "r"(r9), "r"(r10)
                     : "rcx", "r11", "memory");
    words[0] = r12;
    words[1] = r13;
    words[2] = r14;
    words[3] = r15;
    return rax;
}

/* Calls a method: its label has its number, and 24 bits of the hash of the service, which is the third word of an answer. */
static word call(handle to, word method, const void *data, word len, word argument)
{
    word identity[4] = {0}, words[4] = {argument};
    word error = send(to, IDENTIFY, 0, 0, identity);
    word hash = identity[2] >> 40;
    return error ? error : send(to, hash << 8 | method, data, len, words);
}

__attribute__((used)) static void start(const struct start_info *info)
{
    static const char text[] = "hello from C\n";
    word error = call(info->console, CONSOLE_WRITE, text, sizeof text - 1, 0);
    call(info->procd, PROCD_EXIT, 0, 0, error);
}

/* rdi is the address of the start information; a C function wants an aligned stack. */
__asm__(".globl _start\n"
        "_start: xor %ebp, %ebp\n"
        "and $-16, %rsp\n"
        "call start\n"
        "ud2");
