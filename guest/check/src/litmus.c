/*
 * Litmus tests: short programs of two (four) CPUs on two words x and y, whose outcomes tell the memory model. x86 is
 * TSO: a store may be seen late by others, behind a later load of its own CPU (SB), and nothing else is reordered.
 * The forbidden outcomes are those of Alglave, Maranget and Tautschnig, "Herding Cats" (2014), for TSO.
 *
 * The threads run a batch of instances of the program between two barriers, each instance after a random delay of its
 * own. In every other batch x and y are in one page (32 instances share it), in the others in two pages: between hosts
 * the first kind moves one page, the second moves two that can overtake each other.
 *
 * Nothing is reset between batches, which would cost page turns: a batch writes values of its own, and a read or a final
 * value that is neither from this batch nor the one left by the last batch there is an error too: an update was lost, or
 * came back.
 *
 * The two kinds of batches have pages and logs of their own. So the leader can look at one batch's values while the
 * other threads are in the next batch: one barrier a batch.
 */
#include "check.h"

#include <string.h>

enum { BATCH = 32, SETS = 2, THREADS = 4, MAX_OUTCOMES = 64 };
enum { OLD, ONE, TWO, FOREIGN }; /* what a value read or left is: of the batch before, of this one, of none */

/* An outcome: what each thread's two loads read and what x and y held afterwards, in the terms above. */
struct outcome {
	unsigned char r[THREADS][2], x, y;
};

/* A thread's program for one instance: one and two are the values this batch writes for 1 and 2. */
typedef void program(u64 *x, u64 *y, u64 one, u64 two, u64 r[2]);

struct litmus {
	int threads;
	program *thread[THREADS];
	const char *reads[THREADS]; /* which word each of a thread's loads reads, "" for none */
	program *broken;     /* with --sabotage: replaces thread[breaks] */
	int breaks;
	unsigned x_may, y_may; /* bits 1 << OLD, ONE, TWO: what x and y may hold afterwards */
	bool (*forbidden)(const struct outcome *);
	bool (*weak)(const struct outcome *); /* allowed on x86, but not under sequential consistency */
};

#define GAP "mov $1000, %%ecx; 9: dec %%ecx; jnz 9b; "
#define PROGRAM(name, code) \
	static void name(u64 *x, u64 *y, u64 one, u64 two, u64 r[2]) \
	{ \
		u64 a = 0, b = 0; \
		__asm__ volatile(code \
				 : [a] "+&r"(a), [b] "+&r"(b), [x] "+m"(*x), [y] "+m"(*y) \
				 : [one] "r"(one), [two] "r"(two) \
				 : "rcx", "memory", "cc"); \
		r[0] = a; \
		r[1] = b; \
	}

PROGRAM(wx_wy, "movq %[one], %[x]; movq %[one], %[y]")
PROGRAM(wy_wx, "movq %[one], %[y];" GAP "movq %[one], %[x]")
PROGRAM(ry_rx, "movq %[y], %[a]; movq %[x], %[b]")
PROGRAM(rx_ry, "movq %[x], %[a]; movq %[y], %[b]")
PROGRAM(rx_ry_late, "movq %[x], %[b];" GAP "movq %[y], %[a]") /* ry_rx in the wrong order */
PROGRAM(wx_ry, "movq %[one], %[x]; movq %[y], %[a]")
PROGRAM(wy_rx, "movq %[one], %[y]; movq %[x], %[a]")
PROGRAM(rx_wy_late, "movq %[x], %[a];" GAP "movq %[one], %[y]") /* wy_rx in the wrong order */
PROGRAM(wx_mf_ry, "movq %[one], %[x]; mfence; movq %[y], %[a]")
PROGRAM(wy_mf_rx, "movq %[one], %[y]; mfence; movq %[x], %[a]")
PROGRAM(rx_wy, "movq %[x], %[a]; movq %[one], %[y]")
PROGRAM(ry_wx, "movq %[y], %[a]; movq %[one], %[x]")
PROGRAM(wx_ry_late, "movq %[one], %[x];" GAP "movq %[y], %[a]") /* ry_wx in the wrong order */
PROGRAM(wx2_wy1, "movq %[two], %[x]; movq %[one], %[y]")
PROGRAM(wy1_wx2, "movq %[one], %[y];" GAP "movq %[two], %[x]")
PROGRAM(wy2_mf_rx, "movq %[two], %[y]; mfence; movq %[x], %[a]")
PROGRAM(rx_wy2, "movq %[x], %[a];" GAP "movq %[two], %[y]") /* wy2_rx in the wrong order */
PROGRAM(wx1_wy2, "movq %[one], %[x]; movq %[two], %[y]")
PROGRAM(wy2_wx1, "movq %[two], %[y];" GAP "movq %[one], %[x]")
PROGRAM(wy1_wx2_now, "movq %[one], %[y]; movq %[two], %[x]")
PROGRAM(wx, "movq %[one], %[x]")
PROGRAM(wy, "movq %[one], %[y]")
PROGRAM(rx_rx, "movq %[x], %[a]; movq %[x], %[b]")
PROGRAM(rx_rx_late, "movq %[x], %[b];" GAP "movq %[x], %[a]")

static bool mp_bad(const struct outcome *o) { return o->r[1][0] == ONE && o->r[1][1] == OLD; }
static bool sb_both_old(const struct outcome *o) { return o->r[0][0] == OLD && o->r[1][0] == OLD; }
static bool lb_bad(const struct outcome *o) { return o->r[0][0] == ONE && o->r[1][0] == ONE; }
static bool s_bad(const struct outcome *o) { return o->r[1][0] == ONE && o->x == TWO; }
static bool r_bad(const struct outcome *o) { return o->y == TWO && o->r[1][0] == OLD; }
static bool two_plus_two_w_bad(const struct outcome *o) { return o->x == ONE && o->y == ONE; }
static bool iriw_bad(const struct outcome *o)
{
	return o->r[2][0] == ONE && o->r[2][1] == OLD && o->r[3][0] == ONE && o->r[3][1] == OLD;
}
static bool corr_bad(const struct outcome *o) { return o->r[1][0] == ONE && o->r[1][1] == OLD; }

#define IS_OLD (1u << OLD)
#define IS_ONE (1u << ONE)
#define IS_EITHER (1u << ONE | 1u << TWO)

const struct litmus mp = {2, {wx_wy, ry_rx}, {"", "yx"}, wy_wx, 0, IS_ONE, IS_ONE, mp_bad, NULL};
const struct litmus sb = {2, {wx_ry, wy_rx}, {"y", "x"}, wy, 1, IS_ONE, IS_ONE, NULL, sb_both_old};
const struct litmus sb_mfence = {
	2, {wx_mf_ry, wy_mf_rx}, {"y", "x"}, rx_wy_late, 1, IS_ONE, IS_ONE, sb_both_old, NULL};
const struct litmus lb = {2, {rx_wy, ry_wx}, {"x", "y"}, wx_ry_late, 1, IS_ONE, IS_ONE, lb_bad, NULL};
const struct litmus s_test = {2, {wx2_wy1, ry_wx}, {"", "y"}, wy1_wx2, 0, IS_EITHER, IS_ONE, s_bad, NULL};
const struct litmus r_mfence = {2, {wx_wy, wy2_mf_rx}, {"", "x"}, rx_wy2, 1, IS_ONE, IS_EITHER, r_bad, NULL};
const struct litmus two_plus_two_w = {
	2, {wx1_wy2, wy1_wx2_now}, {"", ""}, wy2_wx1, 0, IS_EITHER, IS_EITHER, two_plus_two_w_bad, NULL};
const struct litmus corr = {2, {wx, rx_rx}, {"", "xx"}, rx_rx_late, 1, IS_ONE, IS_OLD, corr_bad, NULL};
const struct litmus iriw = {
	4, {wx, wy, rx_ry, ry_rx}, {"", "", "xy", "yx"}, rx_ry_late, 3, IS_ONE, IS_ONE, iriw_bad, NULL};

/* What all threads read and none writes, while they run. */
struct state {
	const struct litmus *t;
	struct barrier barrier;
	/* Places of x and y of each instance. */
	u64 *x[SETS][BATCH], *y[SETS][BATCH];
	/* What each thread read, on a page of its own for each set. */
	u64 (*log[THREADS][SETS])[2];
	struct findings *findings;
};

/* What the leader, who alone looks at outcomes, has seen. */
struct findings {
	u64 left_x[SETS][BATCH], left_y[SETS][BATCH]; /* what the batch before left */
	u64 instances, forbidden, weak, foreign;
	struct outcome seen[MAX_OUTCOMES];
	int outcomes;
};

static unsigned char classify(u64 value, u64 batch, u64 left)
{
	if (value == 4 * batch + 1)
		return ONE;
	if (value == 4 * batch + 2)
		return TWO;
	return value == left ? OLD : FOREIGN;
}

static void look_at_one(struct state *s, u64 batch, int i)
{
	const struct litmus *t = s->t;
	struct findings *f = s->findings;
	int set = batch % SETS;
	u64 *left_x = &f->left_x[set][i], *left_y = &f->left_y[set][i];
	u64 x = *(volatile u64 *)s->x[set][i], y = *(volatile u64 *)s->y[set][i];
	struct outcome o = {.x = classify(x, batch, *left_x), .y = classify(y, batch, *left_y)};
	bool foreign = !(t->x_may >> o.x & 1) || !(t->y_may >> o.y & 1);
	for (int j = 0; j < t->threads; j++) {
		for (int k = 0; t->reads[j][k]; k++) {
			o.r[j][k] = classify(s->log[j][set][i][k], batch, t->reads[j][k] == 'x' ? *left_x : *left_y);
			foreign |= o.r[j][k] == FOREIGN;
		}
	}
	*left_x = x;
	*left_y = y;
	f->instances++;
	if (foreign) {
		f->foreign++;
		fail("batch %llu: x holds %llu, y holds %llu, or a load read what nobody wrote", (unsigned long long)batch,
		     (unsigned long long)x, (unsigned long long)y);
	} else if (t->forbidden && t->forbidden(&o)) {
		f->forbidden++;
		fail("forbidden outcome with x and y in %s", set == 0 ? "one page" : "two pages");
	} else if (t->weak && t->weak(&o)) {
		f->weak++;
	}
	int known = 0;
	while (known < f->outcomes && memcmp(&f->seen[known], &o, sizeof o) != 0)
		known++;
	if (known == f->outcomes && known < MAX_OUTCOMES)
		f->seen[f->outcomes++] = o;
}

static void look_at(struct state *s, u64 batch)
{
	for (int i = 0; i < BATCH; i++)
		look_at_one(s, batch, i);
}

static void batches(int self, void *arg)
{
	struct state *s = arg;
	program *code = sabotage && self == s->t->breaks ? s->t->broken : s->t->thread[self];
	struct budget b = budget_start(1);
	u64 rng = random_for(self), batch = 1;
	for (; meet(&s->barrier, self, batch, self == 0 && (failed() || spent(&b, batch - 1))); batch++) {
		int set = batch % SETS;
		/*
		 * Delays of all scales: none, some instructions, ..., some page turns. Now and then a pause, at which an
		 * emulator that runs CPUs in turns changes over.
		 */
		u64 delay = (1ull << next_random(&rng) % 15) - 1;
		for (int i = 0; i < BATCH; i++) {
			u64 r = next_random(&rng);
			spin(r & delay);
			if (r >> 61 == 0)
				pause_cpu();
			code(s->x[set][i], s->y[set][i], 4 * batch + 1, 4 * batch + 2, s->log[self][set][i]);
		}
		if (self == 0 && batch > 1)
			look_at(s, batch - 1);
		progress(self, batch * BATCH);
	}
	if (self == 0 && batch > 1)
		look_at(s, batch - 1);
}

void run_litmus(const struct test *test)
{
	struct state s = {.t = test->arg, .findings = pages((sizeof *s.findings + PAGE - 1) / PAGE)};
	const struct litmus *t = s.t;
	const struct findings *f = s.findings;
	char *one_page = pages(1), *x_page = pages(1), *y_page = pages(1);
	barrier_init(&s.barrier, t->threads);
	for (int i = 0; i < BATCH; i++) {
		s.x[0][i] = (u64 *)(one_page + i * 128);
		s.y[0][i] = (u64 *)(one_page + i * 128 + 64);
		s.x[1][i] = (u64 *)(x_page + i * 128);
		s.y[1][i] = (u64 *)(y_page + i * 128);
	}
	for (int i = 0; i < t->threads; i++) {
		for (int set = 0; set < SETS; set++)
			s.log[i][set] = pages(1);
	}
	on_cpus(t->threads, batches, &s);
	count_rounds(f->instances);
	detail("%d different outcomes", f->outcomes);
	if (t->forbidden)
		detail(", %llu forbidden", (unsigned long long)f->forbidden);
	if (t->weak)
		detail(", both stores late in %llu (allowed)", (unsigned long long)f->weak);
	metric("outcomes", f->outcomes);
	metric("forbidden", (double)f->forbidden);
	metric("weak", (double)f->weak);
	metric("foreign", (double)f->foreign);
}
