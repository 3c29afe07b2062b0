#include "engine/overload.h"

#include <math.h>

void pace_pass(pace *p, double seconds, double prompt_tokens, uint32_t decode_rows, uint32_t waiting) {
    if (!(seconds > 0)) return;
    const double kept = exp(-seconds / PACE_MEMORY_S);
    p->prompt_tokens *= kept, p->prompt_s *= kept;
    p->steps *= kept, p->steps_s *= kept;
    p->held_back *= kept;
    if (prompt_tokens > 0) {
        p->prompt_tokens += prompt_tokens, p->prompt_s += seconds;
        p->prompt_rate = p->prompt_tokens / p->prompt_s;
    } else if (waiting > 0) {
        p->held_back += 1 - kept;
    }
    if (decode_rows > 0) {
        p->steps += 1, p->steps_s += seconds;
        p->step_s = p->steps_s / p->steps;
    }
}

void pace_answer(pace *p, uint32_t output_tokens) {
    const double kept = 1 - 1.0 / PACE_MEMORY_ANSWERS;
    p->answers = p->answers * kept + 1;
    p->answer_sum = p->answer_sum * kept + output_tokens;
    p->answer_tokens = p->answer_sum / p->answers;
}

static double prompts_s(const pace *p, const backlog *b) {
    return p->prompt_rate > 0 ? (double)(b->waiting_tokens + b->prompt_left) / p->prompt_rate : 0;
}

/* How many of those who run must end before everybody who waits, and one more, has a place. */
static double places_short(const pace *p, const backlog *b, uint32_t prompt_tokens) {
    const double all = (double)b->waiting + 1;
    const double slots = all - (double)(b->running_max - b->running);
    const double tokens = (double)b->waiting_tokens + prompt_tokens - (double)b->tokens_free;
    const double pages = b->tokens_held > 0 ? tokens * b->running / (double)b->tokens_held : 0;
    double       short_of = slots > pages ? slots : pages;
    if (p->held_back > 0.5 && b->passed_over > 0 && all > short_of) short_of = all; /* whatever holds them back */
    return short_of > 0 ? short_of : 0;
}

double pace_wait_s(const pace *p, const backlog *b, uint32_t prompt_tokens) {
    const double prompts = prompts_s(p, b);
    if (b->running == 0) return prompts;
    const double places = places_short(p, b, prompt_tokens) * p->answer_tokens * p->step_s / b->running;
    return prompts > places ? prompts : places;
}

queue_answer queue_ask(const queue_limits *l, const backlog *b, double wait_s, uint32_t requests, uint64_t prompt_tokens) {
    const uint64_t slots = b->running_max - b->running;
    if ((uint64_t)b->waiting + requests > l->waiting_max + slots) return QUEUE_FULL_REQUESTS;
    if (b->waiting == 0) return QUEUE_HAS_ROOM;
    if (l->waiting_tokens_max && b->waiting_tokens + prompt_tokens > l->waiting_tokens_max) return QUEUE_FULL_TOKENS;
    if (l->wait_max_us && wait_s * 1e6 > (double)l->wait_max_us) return QUEUE_FULL_WAIT;
    return QUEUE_HAS_ROOM;
}
