/*
 * futex: two threads on two CPUs wake each other through one word. The turn goes to and fro without a skip, and no
 * wake-up is lost.
 */
#include "check.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STOP UINT32_MAX

struct game {
	_Atomic uint32_t *turn; /* even: the first thread's; STOP: over */
	struct tally {
		u64 rounds, slept;
	} *tally[2]; /* a page each */
};

/* wait_turn returns the turn when it is self's, or STOP. */
static uint32_t wait_turn(int self, struct game *g, u64 *slept)
{
	double limit_s = patience_ms() / 1000;
	struct timespec limit = {.tv_sec = (time_t)limit_s, .tv_nsec = (long)((limit_s - (double)(time_t)limit_s) * 1e9)};
	uint32_t turn;
	while ((turn = atomic_load(g->turn)) != STOP && (int)(turn & 1) != self) {
		if (syscall(SYS_futex, g->turn, FUTEX_WAIT_PRIVATE, turn, &limit, NULL, 0) == 0) {
			++*slept;
		} else if (errno == ETIMEDOUT && atomic_load(g->turn) != turn) {
			fail("CPU %d slept through the wake-up of turn %u", opt.cpu[self], turn + 1);
			return STOP;
		}
	}
	return turn;
}

static void play(int self, void *arg)
{
	struct game *g = arg;
	struct tally *t = g->tally[self];
	struct budget b = budget_start(1);
	u64 n = 0;
	for (;; n++) {
		uint32_t turn = wait_turn(self, g, &t->slept);
		if (turn != STOP && turn != 2 * n + (u64)self)
			fail("CPU %d got turn %u instead of %llu", opt.cpu[self], turn, (unsigned long long)(2 * n) + (unsigned)self);
		bool over = turn == STOP || failed() || (self == 0 && spent(&b, n));
		atomic_store(g->turn, over ? STOP : turn + 1);
		if (over || !sabotage || n < 5)
			syscall(SYS_futex, g->turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
		if (over)
			break;
		progress(self, n + 1);
	}
	t->rounds = n;
}

void run_futex(const struct test *t)
{
	struct game g = {.turn = pages(1), .tally = {pages(1), pages(1)}};
	u64 start = tsc();
	(void)t;
	on_cpus(2, play, &g);
	double seconds = ns_from_tsc((double)(tsc() - start)) / 1e9, rate = (double)g.tally[0]->rounds / seconds;
	count_rounds(g.tally[0]->rounds);
	detail("%.0f round trips/s; slept %llu and %llu times", rate, (unsigned long long)g.tally[0]->slept,
	       (unsigned long long)g.tally[1]->slept);
	metric("round_trips_per_s", rate);
}
