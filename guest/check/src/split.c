/*
 * split-lock: `lock xadd` on a word that lies across two pages, and on one across two cache lines, from all CPUs. The
 * CPU holds both halves at once, so a host has to give it two pages for one instruction. A kernel with
 * split_lock_detect=fatal answers with SIGBUS, which is reported as such.
 */
#include "check.h"

enum { WORDS = 2, CHECK_EVERY = 8 };

static const size_t offset[WORDS] = {PAGE - 3, 2 * PAGE - 128 + 61};

struct split {
	char *base;
	struct tally {
		u64 rounds, sum[WORDS];
		bool refused;
	} *tally[MAX_CPUS];
};

/* broken_xadd is the same in halves, as a machine would do it that fetches the pages one after the other. */
static bool broken_xadd(u64 *p, u64 *old)
{
	volatile unsigned char *byte = (volatile unsigned char *)p;
	u64 v = 0;
	for (int i = 0; i < 8; i++)
		v |= (u64)byte[i] << 8 * i;
	spin(500);
	*old = v++;
	for (int i = 0; i < 8; i++)
		byte[i] = (unsigned char)(v >> 8 * i);
	return true;
}

static void add(int self, void *arg)
{
	struct split *s = arg;
	struct tally *t = s->tally[self];
	struct budget b = budget_start(1);
	u64 n = 0;
	while (n % CHECK_EVERY != 0 || !spent(&b, n)) {
		for (int i = 0; i < WORDS; i++) {
			u64 *p = (u64 *)(s->base + offset[i]), old;
			if (!(sabotage ? broken_xadd(p, &old) : probe_xadd(p, &old))) {
				t->refused = true;
				return;
			}
			t->sum[i] += old;
		}
		n++;
		progress(self, n);
	}
	t->rounds = n;
}

void run_split(const struct test *t)
{
	struct split s = {.base = pages(2)};
	u64 total = 0;
	(void)t;
	for (int i = 0; i < opt.cpus; i++)
		s.tally[i] = pages(1);
	on_cpus(opt.cpus, add, &s);
	for (int i = 0; i < opt.cpus; i++) {
		total += s.tally[i]->rounds;
		if (s.tally[i]->refused)
			fail("the kernel refuses split locks (SIGBUS): boot it with split_lock_detect=off");
	}
	for (int i = 0; i < WORDS && !failed(); i++) {
		u64 sum = 0, value;
		__builtin_memcpy(&value, s.base + offset[i], sizeof value);
		for (int j = 0; j < opt.cpus; j++)
			sum += s.tally[j]->sum[i];
		if (value != total)
			fail("the word at byte %zu is %llu after %llu additions", offset[i], (unsigned long long)value,
			     (unsigned long long)total);
		if (sum != total * (total - 1) / 2)
			fail("the word at byte %zu handed a value out twice", offset[i]);
	}
	count_rounds(total);
	detail("across a page boundary and across a cache line, %llu additions to each", (unsigned long long)total);
}
