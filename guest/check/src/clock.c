/*
 * clock: time does not go backwards from one CPU to the next. Two threads hand a stamp back and forth: each reads the
 * TSC and CLOCK_MONOTONIC after it has seen the other's, and must not read less.
 */
#include "check.h"

#include <time.h>

struct ball {
	_Atomic u64 turn; /* odd: the second thread's; STOP: the game is over */
	u64 tsc, ns;
};
#define STOP UINT64_MAX

struct clock_state {
	struct ball *ball;
	/* The quickest hand-over seen by each thread, in ticks, on a page of its own. */
	struct quickest {
		u64 ticks, rounds;
	} *quickest[2];
};

static u64 monotonic_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec;
}

static void hand_over(int self, void *arg)
{
	struct clock_state *s = arg;
	struct ball *ball = s->ball;
	struct budget b = budget_start(1);
	u64 least = UINT64_MAX, n = 0;
	/* Broken on purpose, the second CPU's clocks are a second behind. */
	u64 behind_ticks = sabotage && self == 1 ? tsc_from_ms(1000) : 0, behind_ns = behind_ticks ? 1000000000 : 0;
	for (;; n++) {
		u64 turn;
		while ((turn = atomic_load(&ball->turn)) != STOP && (int)(turn & 1) != self)
			pause_cpu();
		if (turn == STOP)
			break;
		u64 now = tsc() - behind_ticks, now_ns = monotonic_ns() - behind_ns;
		if (turn > 0) {
			if (now < ball->tsc)
				fail("TSC of CPU %d is %llu, %llu less than on the other before", opt.cpu[self], (unsigned long long)now,
				     (unsigned long long)(ball->tsc - now));
			else if (now - ball->tsc < least)
				least = now - ball->tsc;
			if (now_ns < ball->ns)
				fail("CLOCK_MONOTONIC of CPU %d is %llu ns behind the other's", opt.cpu[self],
				     (unsigned long long)(ball->ns - now_ns));
		}
		if (self == 0 && (failed() || spent(&b, n))) {
			atomic_store(&ball->turn, STOP);
			break;
		}
		ball->tsc = tsc() - behind_ticks;
		ball->ns = monotonic_ns() - behind_ns;
		atomic_store(&ball->turn, turn + 1);
		progress(self, n + 1);
	}
	s->quickest[self]->ticks = least;
	s->quickest[self]->rounds = n;
}

void run_clock(const struct test *t)
{
	struct clock_state s = {.ball = pages(1), .quickest = {pages(1), pages(1)}};
	(void)t;
	on_cpus(2, hand_over, &s);
	count_rounds(s.quickest[0]->rounds);
	if (s.quickest[0]->ticks == UINT64_MAX || s.quickest[1]->ticks == UINT64_MAX)
		return; /* failed at once */
	for (int i = 0; i < 2; i++) {
		double ns = ns_from_tsc((double)s.quickest[i]->ticks);
		detail("%squickest hand-over to CPU %d %.0f ns", i ? ", " : "", opt.cpu[i], ns);
		metric(i ? "handover_ns_1" : "handover_ns_0", ns);
	}
}
