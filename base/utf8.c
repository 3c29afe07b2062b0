#include "base/utf8.h"

#include <string.h>

/* Allowed range of the second byte for a lead byte; all later bytes are 80..BF (RFC 3629, section 4). */
static int lead_facts(unsigned char b, unsigned char *lo, unsigned char *hi) {
    *lo = 0x80, *hi = 0xBF;
    if (b < 0x80) return 1;
    if (b >= 0xC2 && b <= 0xDF) return 2;
    if (b >= 0xE0 && b <= 0xEF) {
        if (b == 0xE0) *lo = 0xA0;
        if (b == 0xED) *hi = 0x9F;
        return 3;
    }
    if (b >= 0xF0 && b <= 0xF4) {
        if (b == 0xF0) *lo = 0x90;
        if (b == 0xF4) *hi = 0x8F;
        return 4;
    }
    return 0;
}

int utf8_decode(const char *s, size_t n, uint32_t *cp) {
    if (n == 0) return 0;
    unsigned char lo, hi, b = (unsigned char)s[0];
    int           len = lead_facts(b, &lo, &hi);
    if (len == 0) return -1;
    if (len == 1) return *cp = b, 1;
    uint32_t v = b & (0xFFu >> (len + 1));
    for (int i = 1; i < len; i++) {
        if ((size_t)i >= n) return -i;
        unsigned char c = (unsigned char)s[i];
        if (c < lo || c > hi) return -i;
        lo = 0x80, hi = 0xBF;
        v = v << 6 | (c & 0x3F);
    }
    *cp = v;
    return len;
}

int utf8_encode(uint32_t cp, char *out) {
    if (cp < 0x80) return out[0] = (char)cp, 1;
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6), out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12), out[1] = (char)(0x80 | (cp >> 6 & 0x3F)), out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18), out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F)), out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

bool utf8_valid(const char *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t word;
        if (i + 8 <= n && (memcpy(&word, s + i, 8), (word & 0x8080808080808080u) == 0)) {
            i += 8; /* eight ASCII bytes at once: most text */
            continue;
        }
        uint32_t cp;
        int      len = utf8_decode(s + i, n - i, &cp);
        if (len <= 0) return false;
        i += (size_t)len;
    }
    return true;
}

size_t utf8_incomplete_tail(const char *s, size_t n) {
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char lo, hi, b = (unsigned char)s[n - back];
        if ((b & 0xC0) == 0x80) continue;
        int len = lead_facts(b, &lo, &hi);
        if (len <= (int)back) return 0;
        uint32_t cp;
        return utf8_decode(s + n - back, back, &cp) == -(int)back ? back : 0;
    }
    return 0;
}

void utf8_sanitize(char *s) {
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int      len = utf8_decode(s + i, n - i, &cp);
        if (len > 0) {
            i += (size_t)len;
            continue;
        }
        for (int k = 0; k < -len; k++) s[i++] = '?';
    }
}
