/*
 * The coherence check: does this machine's memory, with its CPUs on several hosts, behave as one x86 machine's?
 *
 * It is C, static, without a managed runtime: the threads of such a runtime (collector, scheduler, monitor) would share
 * pages with what is measured, and its memory model would stand between the litmus tests and the machine.
 *
 * What shapes it: between hosts a page that two CPUs want costs 1 to 5 ms a turn. So
 *   - a test ends after its rounds or its time, whichever is first, and a round takes a few page turns;
 *   - time is read from the TSC, never from the vDSO's page, which the other CPU's timer tick keeps writing;
 *   - what a thread writes often (its progress, results, its side of a barrier) is on a page of its own;
 *   - threads live as long as the program: making one costs a hundred page turns in the kernel;
 *   - pages are used once and never given back, so that no test waits for another one's;
 *   - only the main thread prints, from the first CPU, which is the one with the console's device beside it.
 */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096
#define MAX_CPUS 8 /* threads of a test; more CPUs add no new kind of sharing */

typedef uint64_t u64;

/* --- what the user asked for (main.c) --- */

struct options {
	int cpu[MAX_CPUS]; /* the CPUs to check; the first prints */
	int cpus;
	double seconds;   /* a test's time, times the test's share */
	u64 rounds;       /* at most so many; 0: each test's own bound */
	double slack_ms;  /* by how much a sleep may be late */
	double wake_ms;   /* after this a wake-up or signal counts as lost */
	int timeout_s;    /* after this a test counts as hung */
	u64 seed;         /* of the random choices */
	bool json;
	const char *expect_cpus, *expect_nodes, *expect_distance;
	const char *sabotage; /* break this test on purpose, to see it fail */
};
extern struct options opt;

/* --- tests --- */

struct test {
	const char *name, *group, *what;
	int cpus;      /* how many it needs */
	bool optional; /* left out, not failed, where there are fewer */
	double share;  /* of opt.seconds */
	u64 rounds;    /* its own bound */
	u64 min_rounds; /* done even when the time is over: fewer would show nothing */
	void (*run)(const struct test *);
	const void *arg;
};

/* The test that runs now, and whether it is to be broken on purpose. Constant while workers run. */
extern const struct test *current;
extern bool sabotage;

void run_topology(const struct test *);
void run_compute(const struct test *);
void run_ticks(const struct test *);
void run_counters(const struct test *);
void run_split(const struct test *);
void run_litmus(const struct test *);
void run_clock(const struct test *);
void run_sleep(const struct test *);
void run_futex(const struct test *);
void run_signal(const struct test *);
void run_tlb(const struct test *);
void run_fork(const struct test *);
void run_words(const struct test *);
void run_storm(const struct test *);

extern const struct litmus mp, sb, sb_mfence, lb, s_test, r_mfence, two_plus_two_w, corr, iriw;
extern const struct tlb_phase tlb_remap, tlb_unmap, tlb_protect;

/* --- result of the current test (report.c) --- */

/* fail: the test has failed; the first reason given is the one reported. Any thread. */
void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool failed(void);
/* The rest is for the main thread only. */
void detail(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* appends to the human text */
void metric(const char *key, double value); /* a member of the JSON object */
void metric_of(const char *what, int cpu, double value); /* the same for a CPU: what_cpuN */
void count_rounds(u64 rounds);
void report_begin(void);
bool report_end(double seconds, bool left_out); /* prints the row; returns whether the test counts as passed */
void report_summary(int passed, int failures, int left_out, double seconds);
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* one line, one write */

/* die: nothing can be checked here; exit status 2 for a wrong usage, 1 otherwise. */
_Noreturn void die(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- pinned threads (workers.c) --- */

void workers_start(void);
/* on_cpus runs fn(self, arg) on the first n CPUs, self = 0..n-1; all begin when all are there. Returns when all have. */
void on_cpus(int n, void (*fn)(int self, void *arg), void *arg);
/* on_cpu runs fn(self, arg) on CPU number self of the list while the others sleep. */
void on_cpu(int self, void (*fn)(int self, void *arg), void *arg);
int worker_tid(int self);
/* progress publishes how far a worker is: for the watchdog, and summed up as the test's rounds. */
void progress(int self, u64 rounds);
u64 progress_sum(void);
void pin(int cpu);

/* pages returns n zeroed pages of their own, never used before and never given back. Main thread only. */
void *pages(size_t n);

/*
 * A barrier whose words have a page for each thread: arriving is one write to an owned page, waiting is reading pages
 * that change once a round. The leader's word also carries its decision to stop, so that all stop at the same round.
 */
struct barrier {
	int n;
	_Atomic u64 *slot[MAX_CPUS];
};
void barrier_init(struct barrier *b, int n);
/* meet waits until all n threads have come to round (1, 2, ...); false: the leader (self 0) said stop. */
bool meet(struct barrier *b, int self, u64 round, bool stop);

/* --- time (tsc.c) --- */

extern double tsc_per_ns;
void tsc_calibrate(void);
static inline u64 tsc(void)
{
	uint32_t lo, hi;
	/* lfence: not before what precedes it (SDM vol. 2, RDTSC). */
	__asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi)::"memory");
	return (u64)hi << 32 | lo;
}
static inline u64 tsc_from_ms(double ms) { return (u64)(ms * 1e6 * tsc_per_ns); }
static inline double ns_from_tsc(double ticks) { return ticks / tsc_per_ns; }

/* A thread's bounds for the current test, by its own clock: TSCs that differ are the clock test's business. */
struct budget {
	u64 start, end, rounds, min_rounds;
};
struct budget budget_start(double part); /* part: of the test's share */
static inline bool spent(const struct budget *b, u64 rounds)
{
	return rounds >= b->rounds || (rounds >= b->min_rounds && tsc() >= b->end);
}
/* patience_ms: how long a wake-up or a signal may take before it counts as lost. */
double patience_ms(void);

static inline void pause_cpu(void) { __asm__ volatile("pause" ::: "memory"); }
static inline void spin(u64 turns)
{
	for (; turns > 0; turns--)
		__asm__ volatile("" ::: "memory");
}

/* A small generator of random numbers (splitmix64), one state a thread. */
static inline u64 mix(u64 z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}
static inline u64 next_random(u64 *state) { return mix(*state += 0x9e3779b97f4a7c15); }
static inline u64 random_for(int self) { return mix(opt.seed + (u64)self); }

/* --- accesses that may fault (probe.c) --- */

void probes_init(void);
/* Each returns false if the access raised SIGSEGV or SIGBUS. */
bool probe_load(const u64 *p, u64 *value);
bool probe_increment(u64 *p);            /* lock inc */
bool probe_xadd(u64 *p, u64 *old);       /* lock xadd of 1, at any alignment */

/* --- watchdog (watchdog.c) --- */

void watchdog_init(void);
void watchdog_watch(void); /* the current test starts now */
void watchdog_rest(void);

#endif
