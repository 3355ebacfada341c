/* Time from the TSC: its rate, and how long a test may go on. */
#include "check.h"

#include <time.h>

double tsc_per_ns;

static u64 monotonic_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec;
}

/* reading takes a TSC value and the time that belongs together: of some pairs, the one read quickest. */
static void reading(u64 *ticks, u64 *ns)
{
	u64 best = UINT64_MAX;
	for (int i = 0; i < 8; i++) {
		u64 before = tsc(), now = monotonic_ns(), took = tsc() - before;
		if (took < best) {
			best = took;
			*ticks = before;
			*ns = now;
		}
	}
}

void tsc_calibrate(void)
{
	u64 ticks0, ns0, ticks1, ns1;
	reading(&ticks0, &ns0);
	while (monotonic_ns() - ns0 < 20 * 1000 * 1000)
		pause_cpu();
	reading(&ticks1, &ns1);
	tsc_per_ns = (double)(ticks1 - ticks0) / (double)(ns1 - ns0);
	if (!(tsc_per_ns > 0.01 && tsc_per_ns < 100))
		die(1, "the TSC runs at %g GHz against CLOCK_MONOTONIC: it cannot be used for timing", tsc_per_ns);
}

struct budget budget_start(double part)
{
	struct budget b = {
		.start = tsc(),
		.rounds = (u64)((double)(opt.rounds ? opt.rounds : current->rounds) * part),
		.min_rounds = current->min_rounds,
	};
	if (b.rounds < 1)
		b.rounds = 1;
	b.end = b.start + tsc_from_ms(opt.seconds * current->share * part * 1000);
	return b;
}

double patience_ms(void)
{
	/* Broken on purpose, the wait is known to be in vain. */
	return sabotage ? 100 : opt.wake_ms;
}
