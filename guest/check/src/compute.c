/*
 * compute: a loop in user mode without memory, alone on each CPU and on all at once. The result is checked; the times
 * are only told. With one CPU in --cpus it measures that one.
 *
 * The loop is x = a*x + c modulo 2^64: bound by latency, the same on every x86, and its n-th value can be computed in
 * log n steps (Brown, "Random Number Generation with Arbitrary Strides", 1994).
 */
#include "check.h"

#include <stdlib.h>

#define A 6364136223846793005u
#define C 1442695040888963407u

/* Each is a wake-up of the other CPU and back, so not many. */
enum { REPEATS = 5 };

struct compute {
	u64 iterations;
	/* Of the last run, on a page for each thread. */
	struct timing {
		u64 result, ticks;
	} *timing[MAX_CPUS];
	double alone[MAX_CPUS][REPEATS], together[MAX_CPUS][REPEATS]; /* ns an iteration */
};

static u64 loop(u64 x, u64 n)
{
	__asm__ volatile("1: imulq %[a], %[x]\n"
			 "	addq %[c], %[x]\n"
			 "	decq %[n]\n"
			 "	jnz 1b\n"
			 : [x] "+r"(x), [n] "+r"(n)
			 : [a] "r"(A), [c] "r"(C)
			 : "cc");
	return x;
}

/* jump computes what n iterations of loop make of x. */
static u64 jump(u64 x, u64 n)
{
	u64 a = A, c = C, at = 1, ct = 0; /* x -> a*x+c for a power of two of steps; and for those taken so far */
	for (; n > 0; n >>= 1) {
		if (n & 1) {
			at *= a;
			ct = ct * a + c;
		}
		c *= a + 1;
		a *= a;
	}
	return at * x + ct;
}

static void compute(int self, void *arg)
{
	struct compute *s = arg;
	struct timing *t = s->timing[self];
	u64 start = tsc();
	/* Broken on purpose, an iteration is lost. */
	t->result = loop((u64)self, s->iterations - (sabotage ? 1 : 0));
	t->ticks = tsc() - start;
}

static double result_of(struct compute *s, int self)
{
	if (s->timing[self]->result != jump((u64)self, s->iterations))
		fail("CPU %d computes %#llx instead of %#llx", opt.cpu[self], (unsigned long long)s->timing[self]->result,
		     (unsigned long long)jump((u64)self, s->iterations));
	count_rounds(1);
	return ns_from_tsc((double)s->timing[self]->ticks) / (double)s->iterations;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *values)
{
	qsort(values, REPEATS, sizeof values[0], compare);
	return values[REPEATS / 2];
}

void run_compute(const struct test *t)
{
	struct compute s = {.iterations = 100000};
	for (int i = 0; i < opt.cpus; i++)
		s.timing[i] = pages(1);
	on_cpu(0, compute, &s); /* warms up and tells the speed */
	double share_ms = opt.seconds * t->share * 1000 / (REPEATS * (opt.cpus + 1));
	double wanted = share_ms * 1e6 / result_of(&s, 0);
	s.iterations = wanted > 1000 ? (u64)wanted : 1000;

	/* The kinds of runs take turns, so that a slow moment does not fall on one kind. */
	for (int r = 0; r < REPEATS; r++) {
		for (int i = 0; i < opt.cpus; i++) {
			on_cpu(i, compute, &s);
			s.alone[i][r] = result_of(&s, i);
		}
		if (opt.cpus == 1)
			continue;
		on_cpus(opt.cpus, compute, &s);
		for (int i = 0; i < opt.cpus; i++)
			s.together[i][r] = result_of(&s, i);
	}
	detail("ns an iteration, median of %d:", REPEATS);
	double first_alone = 0, first_together = 0;
	for (int i = 0; i < opt.cpus; i++) {
		double a = median(s.alone[i]);
		detail("%s CPU %d %.3f", i ? ";" : "", opt.cpu[i], a);
		metric_of("alone_ns", opt.cpu[i], a);
		metric_of("best_ns", opt.cpu[i], s.alone[i][0]);
		if (i == 0)
			first_alone = a;
		if (opt.cpus == 1)
			continue;
		double b = median(s.together[i]);
		detail(", all at once %.3f", b);
		metric_of("together_ns", opt.cpu[i], b);
		if (i == 0) {
			first_together = b;
			continue;
		}
		detail(" (x%.3f and x%.3f of CPU %d)", a / first_alone, b / first_together, opt.cpu[0]);
		metric_of("alone_ratio", opt.cpu[i], a / first_alone);
		metric_of("together_ratio", opt.cpu[i], b / first_together);
	}
}
