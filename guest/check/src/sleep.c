/*
 * sleep: nanosleep of 10 to 100 ms on each CPU takes at least what was asked and not much longer: the CPU's own timer
 * interrupts it. Measured by CLOCK_MONOTONIC and by the TSC.
 */
#include "check.h"

#include <errno.h>
#include <string.h>
#include <time.h>

static const int asked_ms[] = {10, 20, 50, 100};
enum { SLEEPS = sizeof asked_ms / sizeof asked_ms[0] };

static void sleeps(int self, void *arg)
{
	double *latest_ms = arg;
	for (int i = 0; i < SLEEPS; i++) {
		int ms = sabotage ? asked_ms[i] / 2 : asked_ms[i];
		struct timespec span = {.tv_nsec = ms * 1000000L}, t0, t1;
		u64 start = tsc();
		clock_gettime(CLOCK_MONOTONIC, &t0);
		int err = clock_nanosleep(CLOCK_MONOTONIC, 0, &span, NULL);
		clock_gettime(CLOCK_MONOTONIC, &t1);
		double by_tsc = ns_from_tsc((double)(tsc() - start)) / 1e6;
		double took = (double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6;
		if (err != 0)
			fail("CPU %d: sleep of %d ms: %s", opt.cpu[self], asked_ms[i], strerror(err));
		/* The TSC's rate was measured over 20 ms: 1 % is more than its error. */
		else if (took < asked_ms[i] || by_tsc < asked_ms[i] * 0.99)
			fail("CPU %d: a sleep of %d ms took %.3f ms (%.3f ms by TSC)", opt.cpu[self], asked_ms[i], took, by_tsc);
		else if (took > asked_ms[i] + opt.slack_ms)
			fail("CPU %d: a sleep of %d ms took %.1f ms, more than %.0f ms late", opt.cpu[self], asked_ms[i], took,
			     opt.slack_ms);
		if (took - asked_ms[i] > *latest_ms)
			*latest_ms = took - asked_ms[i];
		progress(self, (u64)i + 1);
	}
}

void run_sleep(const struct test *t)
{
	(void)t;
	detail("10 to 100 ms, late by at most");
	for (int i = 0; i < opt.cpus; i++) {
		double latest = 0;
		char key[32] = "late_ms_0";
		on_cpu(i, sleeps, &latest);
		detail("%s %.2f ms on CPU %d", i ? "," : "", latest, opt.cpu[i]);
		key[8] = (char)('0' + i);
		metric(key, latest);
	}
	detail(" (allowed %.0f ms)", opt.slack_ms);
	count_rounds((u64)(SLEEPS * opt.cpus));
}
