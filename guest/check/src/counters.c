/*
 * counters: `lock xadd` from all CPUs on counters that share a cache line, a page, or have a page each. Afterwards each
 * holds exactly the number of additions, and the values handed out were 0..n-1, each once (so was their sum).
 */
#include "check.h"

enum { COUNTERS = 6, PAGES = 4, CHECK_EVERY = 8 };

/* Byte offsets: two in one cache line, one further in their page, three with a page each. */
static const size_t offset[COUNTERS] = {0, 8, 2048, PAGE + 1024, 2 * PAGE, 3 * PAGE + 4088};

struct counters {
	char *base;
	/* What each thread added and was handed, on a page of its own. */
	struct tally {
		u64 rounds, sum[COUNTERS];
	} *tally[MAX_CPUS];
};

static inline u64 *word(struct counters *c, int i) { return (u64 *)(c->base + offset[i]); }

static inline u64 xadd(u64 *p)
{
	u64 v = 1;
	__asm__ volatile("lock xaddq %0, %1" : "+r"(v), "+m"(*p)::"memory", "cc");
	return v;
}

/* broken_xadd is what xadd must not be: a load and a store with time between them. */
static u64 broken_xadd(u64 *p)
{
	u64 v = *(volatile u64 *)p;
	spin(500);
	*(volatile u64 *)p = v + 1;
	return v;
}

static void count(int self, void *arg)
{
	struct counters *c = arg;
	struct tally *t = c->tally[self];
	struct budget b = budget_start(1);
	u64 last[COUNTERS] = {0}, n = 0;
	while (n % CHECK_EVERY != 0 || !spent(&b, n)) {
		for (int i = 0; i < COUNTERS; i++) {
			u64 old = sabotage ? broken_xadd(word(c, i)) : xadd(word(c, i));
			if (n > 0 && old <= last[i])
				fail("CPU %d: counter %d went from %llu to %llu", opt.cpu[self], i, (unsigned long long)last[i],
				     (unsigned long long)old);
			last[i] = old;
			t->sum[i] += old;
		}
		n++;
		progress(self, n);
	}
	t->rounds = n;
}

void run_counters(const struct test *t)
{
	struct counters c = {.base = pages(PAGES)};
	u64 total = 0;
	(void)t;
	for (int i = 0; i < opt.cpus; i++)
		c.tally[i] = pages(1);
	on_cpus(opt.cpus, count, &c);
	for (int i = 0; i < opt.cpus; i++)
		total += c.tally[i]->rounds;
	for (int i = 0; i < COUNTERS; i++) {
		u64 sum = 0;
		for (int j = 0; j < opt.cpus; j++)
			sum += c.tally[j]->sum[i];
		if (*word(&c, i) != total)
			fail("counter %d is %llu after %llu additions", i, (unsigned long long)*word(&c, i), (unsigned long long)total);
		if (sum != total * (total - 1) / 2)
			fail("counter %d handed a value out twice", i);
	}
	count_rounds(total);
	detail("%d counters, %llu additions to each", COUNTERS, (unsigned long long)total);
	for (int i = 0; i < opt.cpus; i++)
		detail("%s%llu by CPU %d", i ? " + " : " = ", (unsigned long long)c.tally[i]->rounds, opt.cpu[i]);
}
