/*
 * storm: all threads take pages at random, under a lock in the page, verify every word of it against the page's number
 * and sequence, and rewrite it with the next one. At the end the sequences add up to the number of visits.
 */
#include "check.h"

#include <stdlib.h>

enum { PAGES = 48, HEADER = 8, WORDS = PAGE / sizeof(u64) - HEADER };

struct stormy {
	_Atomic u64 lock; /* 0, or 1 + the thread that has it */
	u64 sequence, writer;
	u64 unused[HEADER - 3];
	u64 word[WORDS];
};
_Static_assert(sizeof(struct stormy) == PAGE, "a page");

struct storm {
	struct stormy *page;
	_Atomic u64 *visits[MAX_CPUS]; /* a page each */
};

static u64 pattern(size_t page, u64 sequence, size_t i) { return mix((u64)page << 48 ^ sequence << 16 ^ i); }

static void rewrite(int self, struct storm *s, size_t number)
{
	struct stormy *p = &s->page[number];
	u64 none = 0;
	while (!atomic_compare_exchange_weak(&p->lock, &none, (u64)self + 1)) {
		while (atomic_load(&p->lock) != 0)
			pause_cpu();
		none = 0;
	}
	volatile u64 *word = p->word;
	/* A page is zero until its first visit. */
	for (size_t i = 0; i < WORDS; i++) {
		u64 want = p->sequence == 0 ? 0 : pattern(number, p->sequence, i);
		if (word[i] != want) {
			fail("CPU %d: page %zu, written %llu times, last by CPU %d: word %zu is %#llx, not %#llx", opt.cpu[self], number,
			     (unsigned long long)p->sequence, p->writer ? opt.cpu[p->writer - 1] : -1, i,
			     (unsigned long long)word[i], (unsigned long long)want);
			break;
		}
	}
	p->sequence++;
	p->writer = (u64)self + 1;
	for (size_t i = 0; i < WORDS; i++) {
		/* Broken on purpose: one word is lost. */
		if (!(sabotage && self == 1 && i == WORDS - 1))
			word[i] = pattern(number, p->sequence, i);
	}
	atomic_store(&p->lock, 0);
}

static void visits(int self, void *arg)
{
	struct storm *s = arg;
	struct budget b = budget_start(1);
	u64 rng = random_for(self), n = 0;
	while (!failed() && !spent(&b, n)) {
		rewrite(self, s, next_random(&rng) % PAGES);
		progress(self, ++n);
	}
	atomic_store(s->visits[self], n);
}

void run_storm(const struct test *t)
{
	struct storm s = {.page = pages(PAGES)};
	u64 sequences = 0, visited = 0;
	(void)t;
	for (int i = 0; i < opt.cpus; i++)
		s.visits[i] = pages(1);
	on_cpus(opt.cpus, visits, &s);
	for (size_t i = 0; i < PAGES; i++)
		sequences += s.page[i].sequence;
	for (int i = 0; i < opt.cpus; i++)
		visited += atomic_load(s.visits[i]);
	if (sequences != visited)
		fail("the pages count %llu visits, their visitors %llu", (unsigned long long)sequences, (unsigned long long)visited);
	count_rounds(visited);
	detail("%d pages, every word verified and rewritten in each round", PAGES);
}
