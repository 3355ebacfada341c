/*
 * words: false sharing. Every page has words of all threads in turn; a thread writes only its own and remembers what it
 * wrote. A word that is not as its writer left it was lost when the page moved; another thread's word never goes back.
 */
#include "check.h"

#include <stdbool.h>
#include <stdlib.h>

enum { PAGES = 8, WORDS = PAGE / sizeof(u64), A_VISIT = 32 };

struct words {
	u64 *data;                 /* PAGES */
	u64 *mine[MAX_CPUS];       /* what each thread last wrote, and last saw of the others: PAGES of its own */
	_Atomic u64 *done[MAX_CPUS]; /* how many visits each has made at the end */
};

/* A value tells its writer and how many visits that one had made: those grow. */
static u64 value_of(int self, u64 visit) { return (u64)(self + 1) << 56 | visit; }

static int owner(size_t word) { return (int)(word % (size_t)opt.cpus); }

static void visit(int self, struct words *w, u64 *rng, u64 n)
{
	size_t page = next_random(rng) % PAGES * WORDS;
	for (int i = 0; i < A_VISIT; i++) {
		size_t word = page + next_random(rng) % WORDS;
		volatile u64 *p = &w->data[word];
		u64 *last = &w->mine[self][word], now = *p;
		int writer = owner(word);
		if (writer == self) {
			if (now != *last)
				fail("CPU %d left %#llx in word %zu and finds %#llx", opt.cpu[self], (unsigned long long)*last, word,
				     (unsigned long long)now);
			*p = *last = value_of(self, n);
		} else {
			if (now != 0 && now >> 56 != (u64)writer + 1)
				fail("CPU %d finds %#llx in word %zu, which CPU %d writes", opt.cpu[self], (unsigned long long)now, word,
				     opt.cpu[writer]);
			if (now < *last)
				fail("CPU %d sees word %zu go back from %#llx to %#llx", opt.cpu[self], word, (unsigned long long)*last,
				     (unsigned long long)now);
			*last = now;
			/* Broken on purpose: the whole line is written back, the other's word with what it was. */
			if (sabotage && self == 1 && i == 0)
				*p = now > 2 ? now - 1 : now;
		}
	}
}

static void visits(int self, void *arg)
{
	struct words *w = arg;
	struct budget b = budget_start(1);
	u64 rng = random_for(self), n = 0;
	while (!failed() && !spent(&b, n)) {
		n++;
		visit(self, w, &rng, n);
		progress(self, n);
	}
	atomic_store(w->done[self], n);
}

void run_words(const struct test *t)
{
	struct words w = {.data = pages(PAGES)};
	(void)t;
	for (int i = 0; i < opt.cpus; i++) {
		w.mine[i] = pages(PAGES);
		w.done[i] = pages(1);
	}
	on_cpus(opt.cpus, visits, &w);
	for (size_t i = 0; i < PAGES * WORDS; i++) {
		u64 want = w.mine[owner(i)][i];
		if (w.data[i] != want)
			fail("word %zu holds %#llx at the end, its writer left %#llx", i, (unsigned long long)w.data[i],
			     (unsigned long long)want);
	}
	for (int i = 0; i < opt.cpus; i++)
		count_rounds(atomic_load(w.done[i]));
	detail("%d pages with words of all CPUs in turn, %d accesses a round", PAGES, A_VISIT);
}
