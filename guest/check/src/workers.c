/* Threads pinned to the CPUs under check, their pages and their barrier. */
#include "check.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A worker sleeps until `order` changes, runs fn, and says so in `done`. Each field's page is written by one side. */
struct worker {
	/* The main thread's page. */
	_Atomic uint32_t order __attribute__((aligned(PAGE)));
	void (*fn)(int self, void *arg);
	void *arg;
	bool together; /* with others: wait at the gate for them */
	/* The worker's page. */
	_Atomic uint32_t done __attribute__((aligned(PAGE)));
	_Atomic u64 rounds;
	int tid;
};
static struct worker workers[MAX_CPUS];

/* Where those who are to run at once meet first. */
static struct barrier gate;
static u64 gate_round;

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0); }

void pin(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set) != 0)
		die(1, "cannot run on CPU %d: %s (is it online?)", cpu, strerror(errno));
}

static void *worker_main(void *arg)
{
	int self = (int)(intptr_t)arg;
	struct worker *w = &workers[self];
	pin(opt.cpu[self]);
	w->tid = (int)syscall(SYS_gettid);
	for (uint32_t seen = 0;; seen++) {
		atomic_store(&w->done, seen);
		futex_wake(&w->done);
		while (atomic_load(&w->order) == seen)
			futex_wait(&w->order, seen);
		if (w->together)
			meet(&gate, self, gate_round, false);
		w->fn(self, w->arg);
	}
	return NULL;
}

static void wait_done(struct worker *w)
{
	uint32_t want = atomic_load(&w->order), got;
	while ((got = atomic_load(&w->done)) != want)
		futex_wait(&w->done, got);
}

void workers_start(void)
{
	pthread_attr_t attr;
	barrier_init(&gate, opt.cpus);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 << 10);
	/* The watchdog's signal is for the main thread. */
	sigset_t alarm_set, old;
	sigemptyset(&alarm_set);
	sigaddset(&alarm_set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm_set, &old);
	for (int i = 0; i < opt.cpus; i++) {
		pthread_t thread;
		atomic_store(&workers[i].done, UINT32_MAX); /* until it has found its CPU */
		int err = pthread_create(&thread, &attr, worker_main, (void *)(intptr_t)i);
		if (err != 0)
			die(1, "cannot make a thread: %s", strerror(err));
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	for (int i = 0; i < opt.cpus; i++)
		wait_done(&workers[i]);
}

static void start(int self, void (*fn)(int self, void *arg), void *arg, bool together)
{
	struct worker *w = &workers[self];
	w->together = together;
	w->fn = fn;
	w->arg = arg;
	atomic_fetch_add(&w->order, 1);
	futex_wake(&w->order);
}

void on_cpus(int n, void (*fn)(int self, void *arg), void *arg)
{
	gate.n = n;
	gate_round++;
	/* The first CPU's last: its thread would wait at the gate on the CPU that this one needs. */
	for (int i = n - 1; i >= 0; i--)
		start(i, fn, arg, true);
	for (int i = 0; i < n; i++)
		wait_done(&workers[i]);
}

void on_cpu(int self, void (*fn)(int self, void *arg), void *arg)
{
	start(self, fn, arg, false);
	wait_done(&workers[self]);
}

int worker_tid(int self) { return workers[self].tid; }

void progress(int self, u64 rounds) { atomic_store_explicit(&workers[self].rounds, rounds, memory_order_relaxed); }

u64 progress_sum(void)
{
	u64 sum = 0;
	for (int i = 0; i < opt.cpus; i++)
		sum += atomic_load_explicit(&workers[i].rounds, memory_order_relaxed);
	return sum;
}

void *pages(size_t n)
{
	enum { TOTAL = 2048 };
	static char *arena;
	static size_t used;
	if (!arena) {
		arena = mmap(NULL, TOTAL * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (arena == MAP_FAILED)
			die(1, "no address space for the test pages: %s", strerror(errno));
		/* A huge page would put all tests on one page of the host's. Kernels without them refuse. */
		madvise(arena, TOTAL * PAGE, MADV_NOHUGEPAGE);
	}
	if (used + n > TOTAL)
		die(1, "out of test pages");
	used += n;
	return arena + (used - n) * PAGE;
}

void barrier_init(struct barrier *b, int n)
{
	char *p = pages((size_t)n);
	b->n = n;
	for (int i = 0; i < n; i++)
		b->slot[i] = (_Atomic u64 *)(p + (size_t)i * PAGE);
}

bool meet(struct barrier *b, int self, u64 round, bool stop)
{
	u64 leader = 0;
	atomic_store(b->slot[self], round << 1 | (self == 0 && stop));
	for (int i = 0; i < b->n; i++) {
		u64 word;
		while ((word = atomic_load(b->slot[i])) >> 1 < round)
			pause_cpu();
		if (i == 0)
			leader = word;
	}
	/* A leader that is a round further has gone on. */
	return leader != (round << 1 | 1);
}
