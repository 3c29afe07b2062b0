/* scheduler/order_time.c: the orders that go by predicted time. They ask the two models (step_model.h, length_model.h) when
 * a request comes, when its memory was taken back, and at the few times at which an answer of theirs changes by itself. */
#include "scheduler/order.h"

/* ---- what is predicted ---- */

uint64_t order_prefill_us(const scheduler_config *c, const order_view *q) {
    step_load rest = {0};
    step_load_add_prefill(&rest, &c->model, q->done_tokens, q->known_tokens, 0, c->model.op_count);
    return step_model_predict_us(q->steps, &rest);
}

uint64_t order_decode_us(const order_view *q, double quantile) {
    const scheduler_request *r = q->request;
    const uint32_t           said = q->known_tokens - r->prompt_tokens, most = r->output_tokens_max - said;
    const uint32_t           left = length_model_left(q->lengths, r->tenant.id, said, quantile);
    return (uint64_t)(q->steps->usual_us * (left < most ? left : most));
}

static uint64_t sum_of(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

static uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t less(uint64_t us, uint64_t by_us) { return us == UINT64_MAX ? us : us > by_us ? us - by_us : 0; }

/* When its first token must come, for the client's sake: by the limit on that, and early enough for the rest of the answer,
 * which takes so long, to end by its deadline, and by its share of its job's: what time the job has left is divided among
 * the turns that it has left, so that the first of them does not use up what the last one needs. UINT64_MAX: no matter. */
static uint64_t due_of(const order_view *q, uint64_t decode_us) {
    const request_slo *slo = &q->request->slo;
    uint64_t           end_us = slo->deadline_us ? sum_of(q->arrived_us, slo->deadline_us) : UINT64_MAX;
    if (q->job_end_us != UINT64_MAX)
        end_us = earlier(end_us, q->arrived_us + less(q->job_end_us, q->arrived_us) / q->job_left);
    return earlier(slo->ttft_us ? sum_of(q->arrived_us, slo->ttft_us) : UINT64_MAX, less(end_us, decode_us));
}

static double value_of(const order_view *q) { return q->request->slo.value > 0 ? q->request->slo.value : 1; }

/* A key in which less time for each unit of value goes first. */
static uint64_t price_of(double us, double value) {
    const double price = (us + 1) * 1024 / value;
    return price < 9e18 ? (uint64_t)price : (uint64_t)9e18;
}

/* ---- deadline ---- */

/* Earliest deadline first among those that can still meet theirs (slack-aware EDF). One whose slack is gone,
 *
 *     slack = due - now - predicted time of the rest of its prompt
 *
 * would only take others down with it: it goes to the overload class behind them, where the cheapest for its value goes
 * first, as in a knapsack. It is never dropped, and elders see to it that it is served. Requests that want nothing of time
 * stand as if they wanted their first token after UNHURRIED_US, and are never late. Who lost its memory has a client that
 * reads already: it keeps its deadline, and is not put behind for having missed it. */
enum { UNHURRIED_US = 10000000 };
enum { DEADLINE_FEASIBLE, DEADLINE_LATE };

static order_rank deadline_rank(const scheduler_config *c, const order_view *q, uint64_t now_us) {
    const bool wants_end =
        q->request->slo.deadline_us || q->job_end_us != UINT64_MAX; /* else nobody asks how long it becomes */
    const uint64_t due_us = due_of(q, wants_end ? order_decode_us(q, 0.5) : 0);
    if (due_us == UINT64_MAX)
        return (order_rank){DEADLINE_FEASIBLE, sum_of(q->arrived_us, UNHURRIED_US), .until_us = RANK_HOLDS};
    if (q->returning) return (order_rank){DEADLINE_FEASIBLE, due_us, .until_us = RANK_HOLDS};
    const uint64_t needs_us = order_prefill_us(c, q), latest_us = due_us > needs_us ? due_us - needs_us : 0;
    if (now_us < latest_us) return (order_rank){DEADLINE_FEASIBLE, due_us, .until_us = latest_us};
    return (order_rank){DEADLINE_LATE, price_of((double)needs_us, value_of(q)), .until_us = RANK_HOLDS};
}

/* ---- srpt ---- */

/* Shortest remaining time, of what is known. A request is a row of operations whose sizes come to light one after the other:
 * its prompt is known, its answer is not. So it goes by the size of the operation that is known, in classes that double (a
 * little shorter is no reason to overtake), and what it has had already counts as part of the operation: an answer that
 * turned out long comes back, where its memory was taken, in the class that it has grown into, as if it had survived slice
 * after slice of doubling length. Within a class the shorter rest goes first. Before the step model knows anything a token
 * counts as TOKEN_US. */
enum { TOKEN_US = 20 };

static uint32_t class_of(uint64_t us) { return us == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(us); } /* 2^(c-1) <= us < 2^c */

static order_rank srpt_rank(const scheduler_config *c, const order_view *q, uint64_t now_us) {
    (void)now_us;
    uint64_t rest_us = order_prefill_us(c, q);
    if (rest_us == 0) rest_us = (uint64_t)TOKEN_US * (q->known_tokens - q->done_tokens);
    return (order_rank){class_of(sum_of(q->service_us, rest_us)), rest_us, .until_us = RANK_HOLDS};
}

/* ---- goodput ---- */

/* Value per second: an answer is worth its value if it comes in time, and takes the predicted rest of its prompt and, of
 * each pass that its answer takes, the share of one among those that usually decode. The most value for the time goes first,
 * so what all of it together is worth grows fastest. How long an answer becomes is guessed by the median: an upper quantile
 * would be safe, were it of this answer alone; of one distribution for all it takes most for hopeless. Who waits gains: its
 * value counts double after AGE_US, up to fourfold. Past the last moment at which it can be in time its value falls over a
 * fifth of the time it was given, in steps, and is nothing then: it goes behind all who can still gain something. So each
 * request is ranked a handful of times in its life, at times known before, and there is no tick. Who lost its memory comes
 * back by the value of what is left of it, which is less time than before. */
enum { AGE_US = 30000000, AGES = 4, FALL_STEPS = 4, FALL_PART = 5 };
enum { GOODPUT_WORTH, GOODPUT_LOST };

/* The share of its value that is left, and until when it stays so. */
static double worth_at(const order_view *q, uint64_t due_us, uint64_t latest_us, uint64_t now_us, uint64_t *until_us) {
    *until_us = latest_us;
    if (due_us == UINT64_MAX || now_us < latest_us) return 1;
    const uint64_t given_us = due_us > q->arrived_us ? due_us - q->arrived_us : 0,
                   step_us = given_us / FALL_PART / FALL_STEPS + 1;
    const uint64_t steps = (now_us - latest_us) / step_us + 1;
    *until_us = steps <= FALL_STEPS ? sum_of(latest_us, steps * step_us) : RANK_HOLDS;
    return steps <= FALL_STEPS ? 1 - (double)steps / (FALL_STEPS + 1) : 0;
}

/* Of a job all turns count if the last one is in time, those that are answered too: what is still to be paid for each of
 * them gets less from turn to turn, so a job that was begun is brought to its end. */
static double job_share(const order_view *q) {
    return q->job_end_us == UINT64_MAX ? 1 : (double)q->job_left / (q->job_done + q->job_left);
}

static order_rank goodput_rank(const scheduler_config *c, const order_view *q, uint64_t now_us) {
    const uint64_t prefill_us = order_prefill_us(c, q), decode_us = order_decode_us(q, 0.5);
    const double   needs_us = ((double)prefill_us + (double)decode_us / (1 + q->steps->usual_decodes)) * job_share(q);
    const uint64_t due_us = due_of(q, decode_us), latest_us = less(due_us, prefill_us);
    uint64_t       until_us;
    const double   worth = worth_at(q, due_us, latest_us, now_us, &until_us);
    const uint64_t waited_us = now_us > q->arrived_us ? now_us - q->arrived_us : 0, ages = 1 + waited_us / AGE_US;
    if (worth <= 0) return (order_rank){GOODPUT_LOST, price_of(needs_us, value_of(q)), .until_us = RANK_HOLDS};
    if (ages < AGES) until_us = earlier(until_us, sum_of(q->arrived_us, ages * AGE_US));
    return (order_rank){GOODPUT_WORTH, price_of(needs_us, value_of(q) * worth * (double)earlier(ages, AGES)), until_us};
}

const order_api order_deadline = {deadline_rank, .bounded = false};
const order_api order_srpt = {srpt_rank, .bounded = false};
const order_api order_goodput = {goodput_rank, .bounded = false};
