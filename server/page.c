/* server/page.c: the page a person sees at /, as bytes of the program. */
#include "server/service.h"

__asm__(".section .rodata\n"
        ".global page_html, page_html_bytes\n"
        "page_html:\n.incbin \"server/page/index.html\"\n"
        "page_html_end:\n.balign 8\n"
        "page_html_bytes:\n.quad page_html_end - page_html\n"
        ".previous\n");
