/*
 * TLB shootdown: one thread changes the mapping of pages that the other, on another CPU, has in its TLB and goes on
 * using. After the system call has returned the other must not get through the old mapping. Each test runs both ways
 * round.
 *
 *   tlb-remap    mmap over a mapping: never the page that was there before
 *   tlb-unmap    munmap: never anything but SIGSEGV, until there is a mapping again
 *   tlb-protect  mprotect to read-only: never a write that gets through
 *
 * The mapper waits, each round, until the user has used the new state: so its TLB entry is there when the next change
 * comes. Three sizes of mapping take turns: one page, a few that are flushed one by one, and more than Linux flushes
 * one by one (33). The user pauses each time round: an emulator that runs CPUs in turns changes over there.
 */
#include "check.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FILE_PAGES = 64, MOST = 40 };
static const size_t sizes[] = {1, 4, MOST};
enum { SIZES = sizeof sizes / sizeof sizes[0] };
#define STOP UINT64_MAX

struct tlb_phase {
	void (*mapper)(int self, void *arg), (*user)(int self, void *arg);
};

struct tlb {
	char *area;  /* MOST pages of address space */
	int fd;      /* a file of FILE_PAGES + MOST pages; page i holds i */
	int mapper;  /* which thread maps */
	const struct tlb_phase *phase;
	/* The mapper's page: what it is about to do, and what it has done. */
	struct published {
		_Atomic u64 begun, done;
	} *published;
	/* The user's page: the last state it has used, and how often it tried. */
	struct used {
		_Atomic u64 state, tries;
		u64 stores;
	} *used;
	u64 rounds; /* the mapper's, for the report */
};

static size_t size_of(u64 round) { return sizes[round % SIZES]; }

/* wait_used waits until the user has used a state. */
static void wait_used(struct tlb *t, u64 state)
{
	while (atomic_load(&t->used->state) < state)
		pause_cpu();
}

/* map_file maps the pages for a round at area. */
static bool map_file(struct tlb *t, u64 round)
{
	void *p = mmap(t->area, size_of(round) * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, t->fd,
		       (off_t)(round % FILE_PAGES * PAGE));
	if (p == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	return p != MAP_FAILED;
}

/* one_of picks a page of a mapping: the first, the last or another. */
static size_t one_of(u64 *rng, size_t n)
{
	u64 r = next_random(rng);
	return r % 4 == 0 ? 0 : r % 4 == 1 ? n - 1 : (size_t)(r >> 2) % n;
}

/* --- remap: state n means that mmap number n has returned --- */

static void remap_mapper(int self, void *arg)
{
	struct tlb *t = arg;
	struct budget b = budget_start(0.5);
	u64 n = 0;
	map_file(t, n);
	atomic_store(&t->published->done, 1);
	while (!failed() && !spent(&b, n)) {
		wait_used(t, n + 1);
		n++;
		if (sabotage) {
			atomic_store(&t->published->done, n + 1);
			wait_used(t, n + 1);
		}
		if (!map_file(t, n))
			break;
		atomic_store(&t->published->done, n + 1);
		progress(self, n);
	}
	atomic_store(&t->published->done, STOP);
	t->rounds += n;
}

static void remap_user(int self, void *arg)
{
	struct tlb *t = arg;
	u64 rng = random_for(self), before, value;
	while ((before = atomic_load(&t->published->done)) != STOP) {
		if (before == 0)
			continue; /* nothing is mapped yet */
		u64 round = before - 1;
		/* A page that this mapping and the next one, which may come meanwhile, both have. */
		size_t next = size_of(round + 1), now = size_of(round), page = one_of(&rng, now < next ? now : next);
		bool there = probe_load((u64 *)(t->area + page * PAGE), &value);
		u64 after = atomic_load(&t->published->done);
		/* The mapping after the one announced may be there already, none further, if none was announced meanwhile. */
		if (after == before || after == before + 1) {
			u64 ahead = (value - page - round) % FILE_PAGES;
			if (!there)
				fail("CPU %d: SIGSEGV though mmap over a mapping leaves no gap", opt.cpu[self]);
			else if (value - page >= FILE_PAGES || ahead > after - before + 1)
				fail("CPU %d read page %llu after mmap had put page %llu there", opt.cpu[self],
				     (unsigned long long)value, (unsigned long long)(round % FILE_PAGES + page));
		}
		atomic_store(&t->used->state, before);
		progress(self, round);
		pause_cpu();
	}
}

/* --- unmap: odd states mean mapped, even ones unmapped --- */

static void unmap_mapper(int self, void *arg)
{
	struct tlb *t = arg;
	struct budget b = budget_start(0.5);
	u64 n = 0;
	for (; !failed() && !spent(&b, n); n++) {
		if (!map_file(t, n))
			break;
		atomic_store(&t->published->done, 2 * n + 1);
		wait_used(t, 2 * n + 1);
		atomic_store(&t->published->begun, 2 * n + 2);
		if (!sabotage && munmap(t->area, size_of(n) * PAGE) != 0) {
			fail("munmap: %s", strerror(errno));
			break;
		}
		atomic_store(&t->published->done, 2 * n + 2);
		wait_used(t, 2 * n + 2);
		progress(self, n + 1);
	}
	atomic_store(&t->published->done, STOP);
	t->rounds += n;
}

static void unmap_user(int self, void *arg)
{
	struct tlb *t = arg;
	u64 rng = random_for(self), before, value;
	while ((before = atomic_load(&t->published->done)) != STOP) {
		if (before == 0)
			continue;
		u64 round = (before - 1) / 2;
		bool mapped = before % 2 == 1;
		size_t page = one_of(&rng, size_of(round));
		bool there = probe_load((u64 *)(t->area + page * PAGE), &value);
		u64 begun = atomic_load(&t->published->begun), after = atomic_load(&t->published->done);
		if (mapped && !there && begun < before)
			fail("CPU %d: SIGSEGV in a mapping that nobody touched", opt.cpu[self]);
		if (mapped && there && value != round % FILE_PAGES + page)
			fail("CPU %d read page %llu where page %llu is mapped", opt.cpu[self], (unsigned long long)value,
			     (unsigned long long)(round % FILE_PAGES + page));
		/* The next mapping may be there before it is announced; the one that is gone holds another value. */
		if (!mapped && there && after == before && value == round % FILE_PAGES + page)
			fail("CPU %d read through a mapping after munmap had returned", opt.cpu[self]);
		atomic_store(&t->used->state, before);
		progress(self, round);
		pause_cpu();
	}
}

/* --- protect: the user increments; while the page is read-only the count stands still --- */

static void protect_mapper(int self, void *arg)
{
	struct tlb *t = arg;
	struct budget b = budget_start(0.5);
	volatile u64 *count = (volatile u64 *)t->area;
	u64 n = 0;
	if (mmap(t->area, MOST * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		die(1, "mmap: %s", strerror(errno));
	atomic_store(&t->published->done, 1);
	for (; !failed() && !spent(&b, n); n++) {
		size_t size = size_of(n) * PAGE;
		u64 stores = *count, tries;
		/* The user writes, so its TLB has a writable entry. */
		while (*count == stores)
			pause_cpu();
		if (!sabotage && mprotect(t->area, size, PROT_READ) != 0)
			fail("mprotect: %s", strerror(errno));
		stores = *count;
		/* Two tries: the first may have begun before. */
		for (tries = atomic_load(&t->used->tries); atomic_load(&t->used->tries) < tries + 2;)
			pause_cpu();
		if (*count != stores)
			fail("CPU %d wrote %llu times after mprotect had returned", opt.cpu[1 - self],
			     (unsigned long long)(*count - stores));
		if (mprotect(t->area, size, PROT_READ | PROT_WRITE) != 0)
			fail("mprotect: %s", strerror(errno));
		progress(self, n + 1);
	}
	atomic_store(&t->published->done, STOP);
	t->rounds += n;
}

static void protect_user(int self, void *arg)
{
	struct tlb *t = arg;
	u64 tries = 0, stores = 0, state;
	while ((state = atomic_load(&t->published->done)) != STOP) {
		if (state == 0)
			continue;
		stores += probe_increment((u64 *)t->area);
		atomic_store(&t->used->tries, ++tries);
		progress(self, stores);
		pause_cpu();
	}
	t->used->stores = stores;
}

const struct tlb_phase tlb_remap = {remap_mapper, remap_user};
const struct tlb_phase tlb_unmap = {unmap_mapper, unmap_user};
const struct tlb_phase tlb_protect = {protect_mapper, protect_user};

static void both(int self, void *arg)
{
	struct tlb *t = arg;
	(self == t->mapper ? t->phase->mapper : t->phase->user)(self, t);
}

static int make_file(void)
{
	static int fd = -1;
	if (fd >= 0)
		return fd;
	fd = memfd_create("check", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (FILE_PAGES + MOST) * PAGE) != 0)
		die(1, "cannot make a memory file: %s", strerror(errno));
	for (u64 i = 0; i < FILE_PAGES + MOST; i++) {
		if (pwrite(fd, &i, sizeof i, (off_t)(i * PAGE)) != sizeof i)
			die(1, "cannot write a memory file: %s", strerror(errno));
	}
	return fd;
}

void run_tlb(const struct test *test)
{
	u64 rounds[2] = {0};
	for (int mapper = 0; mapper < 2; mapper++) {
		/* Its own address space, so that nothing else comes to lie in it while it is unmapped. */
		struct tlb t = {.fd = make_file(), .mapper = mapper, .phase = test->arg, .published = pages(1), .used = pages(1)};
		char *reserve = mmap(NULL, (MOST + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (reserve == MAP_FAILED)
			die(1, "no address space: %s", strerror(errno));
		t.area = reserve + PAGE;
		on_cpus(2, both, &t);
		if (t.phase == &tlb_protect && *(u64 *)t.area != t.used->stores)
			fail("the page counts %llu writes, its writer %llu", (unsigned long long)*(u64 *)t.area,
			     (unsigned long long)t.used->stores);
		munmap(reserve, (MOST + 2) * PAGE);
		rounds[mapper] = t.rounds;
		count_rounds(t.rounds);
	}
	detail("%llu changes by CPU %d while CPU %d used the pages, %llu the other way", (unsigned long long)rounds[0],
	       opt.cpu[0], opt.cpu[1], (unsigned long long)rounds[1]);
}
