/* server/page.c: the page a person sees at /, as bytes of the program. */
#include "server/service.h"

__asm__(".section .rodata\n"
        ".global page_begin, page_end\n"
        "page_begin:\n.incbin \"server/page/index.html\"\n"
        "page_end:\n.byte 0\n"
        ".previous\n");
