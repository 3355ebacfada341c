/*
 * Accesses that may fault. Each instruction that may has an entry in the section "probes": its address and where to go
 * on when it faults, as the kernel does for its accesses to user memory.
 */
#include "check.h"

#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

struct probe {
	u64 insn, fixup;
};
extern const struct probe __start_probes[], __stop_probes[];

/* PROBE: the instruction insn; %[ok] becomes 1, or 0 if it faulted. */
#define PROBE(insn) \
	"1: " insn "\n" \
	"	movl $1, %[ok]\n" \
	"	jmp 3f\n" \
	"2:	xorl %[ok], %[ok]\n" \
	"3:\n" \
	".pushsection probes, \"a\"\n" \
	"	.quad 1b, 2b\n" \
	".popsection\n"

bool probe_load(const u64 *p, u64 *value)
{
	int ok;
	u64 v = 0;
	__asm__ volatile(PROBE("movq (%[p]), %[v]") : [ok] "=&r"(ok), [v] "+&r"(v) : [p] "r"(p) : "memory", "cc");
	*value = v;
	return ok;
}

bool probe_increment(u64 *p)
{
	int ok;
	__asm__ volatile(PROBE("lock incq (%[p])") : [ok] "=&r"(ok) : [p] "r"(p) : "memory", "cc");
	return ok;
}

bool probe_xadd(u64 *p, u64 *old)
{
	int ok;
	u64 v = 1;
	__asm__ volatile(PROBE("lock xaddq %[v], (%[p])") : [ok] "=&r"(ok), [v] "+&r"(v) : [p] "r"(p) : "memory", "cc");
	*old = v;
	return ok;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	greg_t *rip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
	(void)info;
	for (const struct probe *p = __start_probes; p < __stop_probes; p++) {
		if ((u64)*rip == p->insn) {
			*rip = (greg_t)p->fixup;
			return;
		}
	}
	/* Not one of ours: memory that was there is not, or the program is wrong. The signal's default ends it. */
	static const char text[] = "check: fault outside a probe in test ";
	const char *name = current ? current->name : "(none)";
	(void)!write(1, text, sizeof text - 1);
	(void)!write(1, name, strlen(name));
	(void)!write(1, "\n", 1);
	signal(sig, SIG_DFL);
}

void probes_init(void)
{
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	sigemptyset(&sa.sa_mask);
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}
