core::arch::global_asm!(".pushsection .bss.stack,\"aw\",@nobits", ".balign 4096", ".skip 32768", ".global BOOT_STACK_TOP", "BOOT_STACK_TOP:", ".popsection");
