#include "bench/plot.h"

#include <math.h>
#include <string.h>

enum { LEFT = 52, RIGHT = 14, TOP = 26, BOTTOM = 36, TICK_GAP_X = 70, TICK_GAP_Y = 36 };

void plot_number(buf *out, double v) {
    static const struct {
        double      from, unit;
        const char *suffix;
    } units[] = {{1e9, 1e9, "G"}, {1e6, 1e6, "M"}, {1e4, 1e3, "k"}, {0, 1, ""}};
    size_t i = 0;
    while (fabs(v) < units[i].from) i++;
    buf_printf(out, "%.4g%s", v / units[i].unit, units[i].suffix);
}

void plot_text(buf *out, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '&': buf_str(out, "&amp;"); break;
        case '<': buf_str(out, "&lt;"); break;
        case '>': buf_str(out, "&gt;"); break;
        case '"': buf_str(out, "&quot;"); break;
        default: buf_char(out, *text);
        }
    }
}

double plot_x(const plot *p, double x) {
    const plot_axes *a = &p->axes;
    double           at =
        a->log_x ? log(fmax(x, a->x_min) / a->x_min) / log(a->x_max / a->x_min) : (x - a->x_min) / (a->x_max - a->x_min);
    return p->left + fmin(fmax(at, 0), 1) * p->inner_width;
}

double plot_y(const plot *p, double y) {
    double at = (y - p->axes.y_min) / (p->axes.y_max - p->axes.y_min);
    return p->top + (1 - fmin(fmax(at, 0), 1)) * p->inner_height;
}

/* 1, 2 or 5 times a power of ten, so that about `wanted` steps fill the span. */
static double nice_step(double span, double wanted) {
    double raw = span / fmax(wanted, 1), power = pow(10, floor(log10(raw))), part = raw / power;
    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

static void tick_x(buf *out, const plot *p, double v) {
    double x = plot_x(p, v);
    buf_printf(out, "<path class=grid d=\"M%.1f %.1fV%.1f\"/><text x=%.1f y=%.1f text-anchor=middle>", x, p->top,
               p->top + p->inner_height, x, p->top + p->inner_height + 14);
    plot_number(out, v);
    buf_str(out, "</text>");
}

static void ticks_x(buf *out, const plot *p) {
    const plot_axes *a = &p->axes;
    if (!a->log_x) {
        double     step = nice_step(a->x_max - a->x_min, p->inner_width / TICK_GAP_X);
        const long last = (long)floor(a->x_max / step + 1e-6);
        for (long i = (long)ceil(a->x_min / step); i <= last; i++) tick_x(out, p, (double)i * step);
        return;
    }
    const bool few = a->x_max / a->x_min < 1000;
    const int  last = (int)floor(log10(a->x_max) + 1e-9);
    for (int decade = (int)floor(log10(a->x_min)); decade <= last; decade++)
        for (int i = 0; i < (few ? 3 : 1); i++) {
            double v = pow(10, decade) * (i == 0 ? 1 : i == 1 ? 2 : 5);
            if (v >= a->x_min && v <= a->x_max) tick_x(out, p, v);
        }
}

static void ticks_y(buf *out, const plot *p) {
    const plot_axes *a = &p->axes;
    double           step = nice_step(a->y_max - a->y_min, p->inner_height / TICK_GAP_Y);
    const long       last = (long)floor(a->y_max / step + 1e-6);
    for (long i = (long)ceil(a->y_min / step); i <= last; i++) {
        double v = (double)i * step, y = plot_y(p, v);
        buf_printf(out, "<path class=grid d=\"M%.1f %.1fH%.1f\"/><text x=%.1f y=%.1f text-anchor=end>", p->left, y,
                   p->left + p->inner_width, p->left - 6, y + 4);
        plot_number(out, a->y_percent ? v * 100 : v);
        buf_str(out, a->y_percent ? " %</text>" : "</text>");
    }
}

static void labels(buf *out, const plot *p) {
    const plot_axes *a = &p->axes;
    buf_printf(out, "<text class=title x=%.1f y=14>", p->left);
    plot_text(out, a->title);
    buf_printf(out, "</text><text x=%.1f y=%d text-anchor=middle>", p->left + p->inner_width / 2, a->height - 6);
    plot_text(out, a->x_label);
    buf_printf(out, "</text><text x=%.1f y=14 text-anchor=end>", p->left + p->inner_width);
    plot_text(out, a->y_label);
    buf_str(out, "</text>");
}

plot plot_open(buf *out, const plot_axes *axes) {
    plot p = {*axes, LEFT, TOP, axes->width - LEFT - RIGHT, axes->height - TOP - BOTTOM};
    if (!(p.axes.x_max > p.axes.x_min)) p.axes.x_max = p.axes.x_min + 1;
    if (!(p.axes.y_max > p.axes.y_min)) p.axes.y_max = p.axes.y_min + 1;
    buf_printf(out, "<svg viewBox=\"0 0 %d %d\" role=img aria-label=\"", axes->width, axes->height);
    plot_text(out, axes->title);
    buf_str(out, "\">");
    ticks_x(out, &p);
    if (!axes->y_bare) ticks_y(out, &p);
    labels(out, &p);
    return p;
}

static void points(buf *out, const plot *p, const double *x, const double *y, size_t n) {
    bool pen_down = false;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i]) || !isfinite(y[i])) {
            pen_down = false;
            continue;
        }
        buf_printf(out, "%c%.1f %.1f", pen_down ? 'L' : 'M', plot_x(p, x[i]), plot_y(p, y[i]));
        pen_down = true;
    }
}

void plot_line(buf *out, const plot *p, const double *x, const double *y, size_t n, const char *css_class) {
    buf_printf(out, "<path class=\"line %s\" d=\"", css_class);
    points(out, p, x, y, n);
    buf_str(out, "\"/>");
}

void plot_area(buf *out, const plot *p, const double *x, const double *y, size_t n, const char *css_class) {
    if (!n) return;
    buf_printf(out, "<path class=\"area %s\" d=\"", css_class);
    points(out, p, x, y, n);
    buf_printf(out, "L%.1f %.1fL%.1f %.1fZ\"/>", plot_x(p, x[n - 1]), plot_y(p, p->axes.y_min), plot_x(p, x[0]),
               plot_y(p, p->axes.y_min));
}

void plot_mark_x(buf *out, const plot *p, double x, const char *label, const char *css_class) {
    if (x < p->axes.x_min || x > p->axes.x_max) return;
    double at = plot_x(p, x);
    bool   right = at < p->left + p->inner_width - 90; /* room for the label */
    buf_printf(out, "<path class=\"mark %s\" d=\"M%.1f %.1fV%.1f\"/><text class=%s x=%.1f y=%.1f text-anchor=%s>", css_class,
               at, p->top, p->top + p->inner_height, css_class, right ? at + 4 : at - 4, p->top + p->inner_height - 6,
               right ? "start" : "end");
    plot_text(out, label);
    buf_str(out, "</text>");
}

void plot_close(buf *out) { buf_str(out, "</svg>"); }
