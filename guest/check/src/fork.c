/*
 * fork: copy on write between CPUs. The child, on the other CPU, sees the parent's data as they were at the fork while
 * the parent already writes over them; what the child writes stays its own; what it writes into shared memory is there
 * when the parent has waited for it. Both ways round.
 */
#include "check.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PRIVATE_PAGES = 6, WORDS = PAGE / sizeof(u64) };
/* The child's exit status: what it has seen. */
enum { FINE, NO_CPU, NOT_THE_PARENTS, NOT_ITS_OWN };

struct fork_state {
	u64 *data;   /* PRIVATE_PAGES, copied on write */
	u64 *shared; /* a page of shared memory */
	u64 rounds;
};

static void fill(u64 *data, u64 stamp)
{
	for (u64 i = 0; i < PRIVATE_PAGES * WORDS; i++)
		((volatile u64 *)data)[i] = mix(stamp + i);
}

static bool holds(const u64 *data, u64 stamp)
{
	for (u64 i = 0; i < PRIVATE_PAGES * WORDS; i++) {
		if (((const volatile u64 *)data)[i] != mix(stamp + i))
			return false;
	}
	return true;
}

/* child runs in the forked process. */
static _Noreturn void child(struct fork_state *s, int cpu, u64 stamp)
{
	pin(cpu);
	/* Twice: the parent writes its own copy meanwhile. */
	if (!holds(s->data, stamp) || !holds(s->data, stamp))
		_exit(NOT_THE_PARENTS);
	fill(s->data, ~stamp);
	s->shared[0] = stamp;
	_exit(holds(s->data, ~stamp) ? FINE : NOT_ITS_OWN);
}

static void forks(int self, void *arg)
{
	static const char *const seen[] = {"", "could not move to its CPU", "did not see the parent's data as they were",
					   "did not see its own writes"};
	struct fork_state *s = arg;
	struct budget b = budget_start(0.5);
	u64 n = 0;
	for (; !failed() && !spent(&b, n); n++) {
		u64 stamp = opt.seed + 4 * n + (u64)self;
		int status;
		fill(s->data, stamp);
		pid_t pid = fork();
		if (pid < 0) {
			fail("fork: %s", strerror(errno));
			break;
		}
		if (pid == 0)
			child(s, opt.cpu[1 - self], stamp);
		fill(s->data, stamp + 1);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (!WIFEXITED(status) || WEXITSTATUS(status) > NOT_ITS_OWN)
			fail("the child on CPU %d died, wait status %#x", opt.cpu[1 - self], status);
		else if (WEXITSTATUS(status) != FINE)
			fail("the child on CPU %d %s", opt.cpu[1 - self], seen[WEXITSTATUS(status)]);
		else if (!holds(s->data, stamp + 1))
			fail("the parent on CPU %d sees what its child wrote", opt.cpu[self]);
		else if (((volatile u64 *)s->shared)[0] != stamp)
			fail("the parent on CPU %d does not see the child's write to shared memory", opt.cpu[self]);
		progress(self, n + 1);
	}
	s->rounds += n;
}

/* anonymous returns pages of a mapping of their own. */
static void *anonymous(size_t n, int flags)
{
	void *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		die(1, "no memory for the fork test: %s", strerror(errno));
	return p;
}

void run_fork(const struct test *t)
{
	/* Broken on purpose, nothing is copied. */
	struct fork_state s = {.data = anonymous(PRIVATE_PAGES, sabotage ? MAP_SHARED : MAP_PRIVATE),
			       .shared = anonymous(1, MAP_SHARED)};
	(void)t;
	on_cpu(0, forks, &s);
	on_cpu(1, forks, &s);
	munmap(s.data, PRIVATE_PAGES * PAGE);
	munmap(s.shared, PAGE);
	count_rounds(s.rounds);
	detail("%d pages copied on write, parent and child on different CPUs", PRIVATE_PAGES);
}
