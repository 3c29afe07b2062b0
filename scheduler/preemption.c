#include "scheduler/preemption.h"

/* Nobody yields. Only a pass whose rows somebody no longer wants is cut short: the others go on where they were. */
static bool none_stops(const stop_view *v) { return v->cancelled; }

const preemption_api preemption_none = {none_stops};
