/* The command: its options, the table of tests, and their order. check.h says what shapes them. */
#include "check.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { EXIT_OK, EXIT_FAILED, EXIT_USAGE };

struct options opt = {.seconds = 1, .slack_ms = 1000, .wake_ms = 5000, .timeout_s = 60};
const struct test *current;
bool sabotage;

/* From what needs least to what needs most. A test's rounds take well under a second where CPUs share real memory. */
static const struct test tests[] = {
	{"topology", "", "CPUs, nodes and distances the kernel found", 1, false, 0, 1, 1, run_topology, NULL},
	{"compute", "", "a loop in user mode on each CPU and on all", 1, false, 1, 1, 1, run_compute, NULL},
	{"ticks", "", "what the timer takes from a loop in user mode", 1, false, 1, 1, 1, run_ticks, NULL},
	{"counters", "", "lock xadd on shared words", 2, false, 1, 200000, 8, run_counters, NULL},
	{"split-lock", "", "lock xadd across two pages", 2, false, 1, 50000, 8, run_split, NULL},
	{"mp", "litmus", "message passing", 2, false, .5, 3000, 4, run_litmus, &mp},
	{"sb", "litmus", "store buffering", 2, false, .5, 3000, 4, run_litmus, &sb},
	{"sb+mfence", "litmus", "store buffering with mfence", 2, false, .5, 3000, 4, run_litmus, &sb_mfence},
	{"lb", "litmus", "load buffering", 2, false, .5, 3000, 4, run_litmus, &lb},
	{"s", "litmus", "two stores against a load and a store", 2, false, .5, 3000, 4, run_litmus, &s_test},
	{"r+mfence", "litmus", "two stores against a store, mfence and a load", 2, false, .5, 3000, 4, run_litmus, &r_mfence},
	{"2+2w", "litmus", "two stores against two stores", 2, false, .5, 3000, 4, run_litmus, &two_plus_two_w},
	{"corr", "litmus", "two loads of one word", 2, false, .5, 3000, 4, run_litmus, &corr},
	{"iriw", "litmus", "two readers of two writers", 4, true, .5, 3000, 4, run_litmus, &iriw},
	{"clock", "", "time does not go back between CPUs", 2, false, .7, 100000, 4, run_clock, NULL},
	{"sleep", "", "nanosleep on each CPU", 1, false, 0, 1, 1, run_sleep, NULL},
	{"futex", "", "waking each other through a futex", 2, false, .7, 10000, 4, run_futex, NULL},
	{"signal", "", "interrupting each other with tgkill", 2, false, .7, 10000, 4, run_signal, NULL},
	{"tlb-remap", "tlb", "mmap under a reader on the other CPU", 2, false, .8, 3000, 3, run_tlb, &tlb_remap},
	{"tlb-unmap", "tlb", "munmap under a reader on the other CPU", 2, false, .8, 2000, 3, run_tlb, &tlb_unmap},
	{"tlb-protect", "tlb", "mprotect under a writer on the other CPU", 2, false, .8, 2000, 3, run_tlb, &tlb_protect},
	{"fork", "", "copy on write with parent and child apart", 2, false, 1, 100, 1, run_fork, NULL},
	{"words", "", "words of all CPUs in the same pages", 2, false, 1, 50000, 8, run_words, NULL},
	{"storm", "", "random pages verified and rewritten", 2, false, 1, 50000, 8, run_storm, NULL},
};
enum { TESTS = sizeof tests / sizeof tests[0] };

static const char usage_text[] =
	"usage: check [OPTION]... [TEST|GROUP]...\n"
	"Checks that the CPUs of this machine share one coherent memory. Without names: all tests.\n"
	"  --cpus LIST          the CPUs to check, such as 0,1 or 0-3 (all, 8 at most); the first one prints\n"
	"  --seconds S          time for a test, some take a part of it (1)\n"
	"  --rounds N           rounds of a test at most (each has its own number)\n"
	"  --timeout S          a test that takes longer hangs (60)\n"
	"  --slack MS           by how much a sleep may be late (1000)\n"
	"  --wake MS            a wake-up or signal that takes longer is lost (5000)\n"
	"  --seed N             of the random choices (from the TSC)\n"
	"  --expect-cpus N      topology: CPUs online\n"
	"  --expect-nodes L     topology: NUMA nodes and their CPUs, such as \"0:0;1:1\"\n"
	"  --expect-distance L  topology: distances, such as \"10 20;20 10\" or 10/20;20/10\n"
	"  --json               also print a JSON object a line for each test and one for all\n"
	"  --list               print the tests\n"
	"exit status: 0 all passed, 1 one failed, 2 wrong usage, 3 one hung\n";

static double number(const char *option, const char *s, double least, double most)
{
	char *end;
	double v = strtod(s, &end);
	if (*end || end == s || !(v >= least && v <= most))
		die(EXIT_USAGE, "--%s %s: not a number from %g to %g", option, s, least, most);
	return v;
}

static void add_cpu(long cpu)
{
	for (int i = 0; i < opt.cpus; i++) {
		if (opt.cpu[i] == cpu)
			die(EXIT_USAGE, "--cpus: CPU %ld twice", cpu);
	}
	if (opt.cpus == MAX_CPUS)
		die(EXIT_USAGE, "--cpus: more than %d CPUs", MAX_CPUS);
	opt.cpu[opt.cpus++] = (int)cpu;
}

static void parse_cpus(const char *list)
{
	const char *s = list;
	do {
		char *end;
		long first = strtol(s, &end, 10), last = first;
		bool good = end > s && first >= 0;
		if (good && *end == '-') {
			s = end + 1;
			last = strtol(s, &end, 10);
			good = end > s && last >= first;
		}
		if (!good || last >= CPU_SETSIZE || (*end && *end != ','))
			die(EXIT_USAGE, "--cpus %s: not a list such as 0,1 or 0-3", list);
		for (long cpu = first; cpu <= last; cpu++)
			add_cpu(cpu);
		s = end;
	} while (*s++ == ',');
}

/* usable_cpus takes the CPUs the process may run on. */
static void usable_cpus(void)
{
	cpu_set_t set;
	if (sched_getaffinity(0, sizeof set, &set) != 0)
		die(EXIT_FAILED, "cannot find the usable CPUs: %s", strerror(errno));
	for (int cpu = 0; cpu < CPU_SETSIZE && opt.cpus < MAX_CPUS; cpu++) {
		if (CPU_ISSET(cpu, &set))
			add_cpu(cpu);
	}
}

static bool named(const struct test *t, const char *name)
{
	return strcmp(name, t->name) == 0 || (*t->group && strcmp(name, t->group) == 0);
}

static void check_name(const char *name)
{
	for (int i = 0; i < TESTS; i++) {
		if (named(&tests[i], name))
			return;
	}
	die(EXIT_USAGE, "no test is called %s: see --list", name);
}

static void list(void)
{
	for (int i = 0; i < TESTS; i++)
		say("%-12s %-7s %d CPUs  %s", tests[i].name, *tests[i].group ? tests[i].group : "-", tests[i].cpus, tests[i].what);
}

static void parse_options(int argc, char **argv)
{
	enum { CPUS = 1, SECONDS, ROUNDS, TIMEOUT, SLACK, WAKE, SEED, E_CPUS, E_NODES, E_DISTANCE, JSON, LIST, HELP, SABOTAGE };
	static const struct option options[] = {
		{"cpus", required_argument, NULL, CPUS},
		{"seconds", required_argument, NULL, SECONDS},
		{"rounds", required_argument, NULL, ROUNDS},
		{"timeout", required_argument, NULL, TIMEOUT},
		{"slack", required_argument, NULL, SLACK},
		{"wake", required_argument, NULL, WAKE},
		{"seed", required_argument, NULL, SEED},
		{"expect-cpus", required_argument, NULL, E_CPUS},
		{"expect-nodes", required_argument, NULL, E_NODES},
		{"expect-distance", required_argument, NULL, E_DISTANCE},
		{"json", no_argument, NULL, JSON},
		{"list", no_argument, NULL, LIST},
		{"help", no_argument, NULL, HELP},
		{"sabotage", required_argument, NULL, SABOTAGE}, /* for the tests of this program */
		{NULL, 0, NULL, 0},
	};
	int c, index = 0;
	while ((c = getopt_long(argc, argv, "", options, &index)) != -1) {
		const char *name = c == '?' ? "" : options[index].name;
		switch (c) {
		case CPUS: parse_cpus(optarg); break;
		case SECONDS: opt.seconds = number(name, optarg, 0.001, 3600); break;
		case ROUNDS: opt.rounds = (u64)number(name, optarg, 1, 1e12); break;
		case TIMEOUT: opt.timeout_s = (int)number(name, optarg, 1, 1e6); break;
		case SLACK: opt.slack_ms = number(name, optarg, 0, 1e6); break;
		case WAKE: opt.wake_ms = number(name, optarg, 1, 1e6); break;
		case SEED: opt.seed = (u64)number(name, optarg, 0, 1e15); break;
		case E_CPUS: opt.expect_cpus = optarg; break;
		case E_NODES: opt.expect_nodes = optarg; break;
		case E_DISTANCE: opt.expect_distance = optarg; break;
		case JSON: opt.json = true; break;
		case SABOTAGE: check_name(opt.sabotage = optarg); break;
		case LIST: list(); exit(EXIT_OK);
		case HELP: fputs(usage_text, stdout); exit(EXIT_OK);
		default: fputs(usage_text, stderr); exit(EXIT_USAGE);
		}
	}
	for (int i = optind; i < argc; i++)
		check_name(argv[i]);
}

/* wanted tells whether a test is among those named; where none is, all are. */
static bool wanted(const struct test *t, char **names, bool *by_name)
{
	*by_name = false;
	for (char **n = names; *n; n++)
		*by_name |= strcmp(*n, t->name) == 0;
	if (!*names || *by_name)
		return true;
	for (char **n = names; *n; n++) {
		if (named(t, *n))
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	int passed = 0, failures = 0, left_out = 0;
	parse_options(argc, argv);
	if (opt.cpus == 0)
		usable_cpus();
	pin(opt.cpu[0]);
	tsc_calibrate();
	if (opt.seed == 0)
		opt.seed = tsc() % 1000000000;
	probes_init();
	watchdog_init();
	workers_start();
	say("check: %d CPUs from CPU %d, TSC %.1f MHz, %g s a test, seed %llu", opt.cpus, opt.cpu[0], tsc_per_ns * 1000,
	    opt.seconds, (unsigned long long)opt.seed);

	u64 begun = tsc();
	for (const struct test *t = tests; t < tests + TESTS; t++) {
		bool by_name;
		if (!wanted(t, argv + optind, &by_name))
			continue;
		current = t;
		sabotage = opt.sabotage && strcmp(opt.sabotage, t->name) == 0;
		report_begin();
		bool too_few = opt.cpus < t->cpus, skip = too_few && t->optional && !by_name;
		u64 start = tsc();
		if (too_few) {
			if (skip)
				detail("needs %d CPUs", t->cpus);
			else
				fail("needs %d CPUs", t->cpus);
		} else {
			for (int i = 0; i < opt.cpus; i++)
				progress(i, 0);
			watchdog_watch();
			t->run(t);
			watchdog_rest();
		}
		bool good = report_end(ns_from_tsc((double)(tsc() - start)) / 1e9, skip);
		left_out += skip;
		passed += good && !skip;
		failures += !good;
	}
	report_summary(passed, failures, left_out, ns_from_tsc((double)(tsc() - begun)) / 1e9);
	return failures ? EXIT_FAILED : EXIT_OK;
}
