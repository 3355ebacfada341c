/*
 * signal: tgkill from one CPU's thread to the other's, to and fro. Whoever waits does so in user mode, without system
 * calls, so each signal needs an interrupt to the other CPU. As many are handled as were sent.
 */
#include "check.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Signals this thread has handled. Not reset: the other's first signal may come before this thread has begun. */
static __thread volatile sig_atomic_t got;

static void on_signal(int sig)
{
	(void)sig;
	got = got + 1;
}

struct signals {
	_Atomic int *over; /* written once */
	struct tally {
		u64 sent, got;
	} *tally[2]; /* a page each */
};

/* wait_for waits for the n-th signal; false if the game is over or the signal is lost. */
static bool wait_for(int self, struct signals *s, u64 n)
{
	u64 end = tsc() + tsc_from_ms(patience_ms());
	while ((u64)got < n) {
		if (atomic_load(s->over) && (u64)got < n)
			return false;
		if (tsc() > end) {
			fail("signal %llu to CPU %d did not arrive within %.0f ms", (unsigned long long)n, opt.cpu[self], patience_ms());
			return false;
		}
		pause_cpu();
	}
	return true;
}

static void volley(int self, void *arg)
{
	struct signals *s = arg;
	struct tally *t = s->tally[self];
	struct budget b = budget_start(1);
	int other = worker_tid(1 - self);
	u64 n = 0;
	for (; !(self == 0 && spent(&b, n)); n++) {
		if (self == 1 && !wait_for(self, s, n + 1))
			break;
		if (!(sabotage && self == 1 && n == 5))
			syscall(SYS_tgkill, getpid(), other, SIGUSR1);
		t->sent++;
		if (self == 0 && !wait_for(self, s, n + 1))
			break;
		progress(self, n + 1);
	}
	atomic_store(s->over, 1);
	t->got = (u64)got;
}

void run_signal(const struct test *t)
{
	struct signals s = {.over = pages(1), .tally = {pages(1), pages(1)}};
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	u64 start = tsc();
	(void)t;
	sigemptyset(&sa.sa_mask);
	sigaction(SIGUSR1, &sa, NULL);
	on_cpus(2, volley, &s);
	double seconds = ns_from_tsc((double)(tsc() - start)) / 1e9, rate = (double)s.tally[0]->sent / seconds;
	for (int i = 0; i < 2; i++) {
		if (s.tally[i]->got != s.tally[1 - i]->sent)
			fail("CPU %d handled %llu signals of %llu", opt.cpu[i], (unsigned long long)s.tally[i]->got,
			     (unsigned long long)s.tally[1 - i]->sent);
	}
	count_rounds(s.tally[0]->sent);
	detail("%.0f round trips/s", rate);
	metric("round_trips_per_s", rate);
}
