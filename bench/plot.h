/* bench/plot.h: plots as SVG inside a page, styled by the page's CSS classes; no scripts, nothing from outside.
 *
 * Open a frame with its axes, draw into it, close it. A frame maps data to pixels; what lies outside is clipped. */
#pragma once
#include <stdbool.h>

#include "base/buf.h"

typedef struct {
    const char *title, *x_label, *y_label;
    double      x_min, x_max, y_min, y_max; /* max <= min becomes min + 1 */
    bool        log_x;                      /* x_min > 0 */
    bool        y_percent;                  /* y runs 0..1 and is written 0 %..100 % */
    bool        y_bare;                     /* y is only an order: no ticks */
    int         width, height;              /* of the whole, in pixels */
} plot_axes;

typedef struct {
    plot_axes axes;
    double    left, top, inner_width, inner_height;
} plot;

plot   plot_open(buf *out, const plot_axes *axes); /* frame, grid, ticks, labels */
double plot_x(const plot *p, double x);
double plot_y(const plot *p, double y);
void   plot_line(buf *out, const plot *p, const double *x, const double *y, size_t n, const char *css_class);
void   plot_area(buf *out, const plot *p, const double *x, const double *y, size_t n,
                 const char *css_class); /* down to y_min */
void   plot_mark_x(buf *out, const plot *p, double x, const char *label,
                   const char *css_class); /* a line across, with its name */
void   plot_close(buf *out);

/* "0", "250", "1.5k", "3M". */
void plot_number(buf *out, double v);
/* `text` with &, <, >, " written as entities. */
void plot_text(buf *out, const char *text);
