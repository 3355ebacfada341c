/*
 * topology: what the kernel made of the ACPI tables: CPUs online, NUMA nodes with their CPUs, distances (SLIT).
 *
 * Without expectations it still checks that the picture is sound: every online CPU is in exactly one node, the matrix
 * is square, a node is 10 from itself and further from every other one.
 */
#include "check.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ID = 1024, MAX_NODES = 64 };

struct set {
	unsigned char has[MAX_ID];
};

/* read_line reads the first line of a file of sysfs; false if there is none. */
static bool read_line(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, buf, size - 1);
	close(fd);
	if (n < 0)
		return false;
	buf[n] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return true;
}

/* parse_set reads "0-3,8" into a set; false if it is not such a list. */
static bool parse_set(const char *s, struct set *set)
{
	memset(set, 0, sizeof *set);
	while (*s) {
		char *end;
		if (!isdigit((unsigned char)*s))
			return false;
		unsigned long first = strtoul(s, &end, 10), last = first;
		if (*end == '-') {
			if (!isdigit((unsigned char)end[1]))
				return false;
			last = strtoul(end + 1, &end, 10);
		}
		if (first > last || last >= MAX_ID || (*end && *end != ','))
			return false;
		for (unsigned long i = first; i <= last; i++)
			set->has[i] = 1;
		s = *end ? end + 1 : end;
	}
	return true;
}

static int set_size(const struct set *s)
{
	int n = 0;
	for (int i = 0; i < MAX_ID; i++)
		n += s->has[i];
	return n;
}

static bool same_set(const struct set *a, const struct set *b) { return memcmp(a, b, sizeof *a) == 0; }

/* parse_row reads "10 20" ("10/20" where spaces are awkward); returns how many numbers, -1 if it is no such row. */
static int parse_row(const char *s, size_t len, int row[MAX_NODES])
{
	int n = 0;
	size_t i = 0;
	while (i < len) {
		if (s[i] == ' ' || s[i] == '/') {
			i++;
			continue;
		}
		if (!isdigit((unsigned char)s[i]) || n == MAX_NODES)
			return -1;
		int v = 0;
		for (; i < len && isdigit((unsigned char)s[i]) && v < 100000; i++)
			v = v * 10 + (s[i] - '0');
		row[n++] = v;
	}
	return n;
}

static struct set online;
static struct node {
	int id;
	char cpulist[256], distance[256];
	struct set cpus;
} nodes[MAX_NODES];
static int node_count;

static void read_system(void)
{
	char line[256], path[64];
	node_count = 0;
	if (!read_line("/sys/devices/system/cpu/online", line, sizeof line) || !parse_set(line, &online))
		fail("cannot read /sys/devices/system/cpu/online");
	struct set ids;
	/* A kernel without NUMA has no such folder: no nodes. */
	if (!read_line("/sys/devices/system/node/online", line, sizeof line) || !parse_set(line, &ids))
		return;
	for (int id = 0; id < MAX_ID && node_count < MAX_NODES; id++) {
		if (!ids.has[id])
			continue;
		struct node *n = &nodes[node_count++];
		n->id = id;
		snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", id);
		if (!read_line(path, n->cpulist, sizeof n->cpulist) || !parse_set(n->cpulist, &n->cpus))
			fail("cannot read %s", path);
		snprintf(path, sizeof path, "/sys/devices/system/node/node%d/distance", id);
		if (!read_line(path, n->distance, sizeof n->distance))
			fail("cannot read %s", path);
	}
}

static void check_sound(void)
{
	for (int i = 0; i < opt.cpus; i++) {
		if (!online.has[opt.cpu[i]])
			fail("CPU %d is not online", opt.cpu[i]);
	}
	for (int cpu = 0; node_count > 0 && cpu < MAX_ID; cpu++) {
		int in = 0;
		for (int i = 0; i < node_count; i++)
			in += nodes[i].cpus.has[cpu];
		if (online.has[cpu] && in != 1)
			fail("CPU %d is in %d nodes", cpu, in);
	}
	for (int i = 0; i < node_count; i++) {
		int row[MAX_NODES], n = parse_row(nodes[i].distance, strlen(nodes[i].distance), row);
		if (n != node_count)
			fail("node %d has %d distances for %d nodes", nodes[i].id, n, node_count);
		for (int j = 0; j < n; j++) {
			if ((i == j) != (row[j] == 10) || row[j] < 10)
				fail("node %d is %d from node %d", nodes[i].id, row[j], nodes[j].id);
		}
	}
}

static void check_cpus(void)
{
	char *end;
	long want = strtol(opt.expect_cpus, &end, 10);
	if (*end || end == opt.expect_cpus)
		die(2, "--expect-cpus %s: not a number", opt.expect_cpus);
	if (set_size(&online) != want)
		fail("%d CPUs online, expected %ld", set_size(&online), want);
}

/* check_nodes compares with "0:0-1;1:2": node 0 has CPUs 0 and 1, node 1 has CPU 2. */
static void check_nodes(void)
{
	const char *s = opt.expect_nodes;
	int seen = 0;
	while (*s) {
		char item[256];
		size_t len = strcspn(s, ";");
		struct set want;
		char *end;
		if (len >= sizeof item)
			die(2, "--expect-nodes: an entry is too long");
		memcpy(item, s, len);
		item[len] = 0;
		long id = strtol(item, &end, 10);
		if (end == item || *end != ':' || !parse_set(end + 1, &want))
			die(2, "--expect-nodes: \"%s\" is not NODE:CPULIST", item);
		const struct node *n = NULL;
		for (int i = 0; i < node_count; i++) {
			if (nodes[i].id == id)
				n = &nodes[i];
		}
		if (!n)
			fail("there is no node %ld", id);
		else if (!same_set(&want, &n->cpus))
			fail("node %ld has CPUs \"%s\", expected \"%s\"", id, n->cpulist, end + 1);
		seen++;
		s += len + (s[len] == ';');
	}
	if (seen != node_count)
		fail("%d nodes, expected %d", node_count, seen);
}

static void check_distances(void)
{
	const char *s = opt.expect_distance;
	int rows = 0;
	for (; *s; rows++) {
		int want[MAX_NODES], have[MAX_NODES];
		size_t len = strcspn(s, ";");
		int n = parse_row(s, len, want);
		if (n < 0)
			die(2, "--expect-distance: row %d is not numbers", rows);
		if (rows < node_count) {
			const struct node *node = &nodes[rows];
			if (parse_row(node->distance, strlen(node->distance), have) != n ||
			    memcmp(want, have, (size_t)n * sizeof want[0]) != 0)
				fail("node %d has distances \"%s\", expected \"%.*s\"", node->id, node->distance, (int)len, s);
		}
		s += len + (s[len] == ';');
	}
	if (rows != node_count)
		fail("%d nodes have distances, expected %d", node_count, rows);
}

void run_topology(const struct test *t)
{
	(void)t;
	read_system();
	if (sabotage)
		memset(&online, 0, sizeof online);
	check_sound();
	if (opt.expect_cpus)
		check_cpus();
	if (opt.expect_nodes)
		check_nodes();
	if (opt.expect_distance)
		check_distances();
	detail("%d CPUs online, %d nodes", set_size(&online), node_count);
	for (int i = 0; i < node_count; i++)
		detail("; node %d: CPUs %s, distances %s", nodes[i].id, nodes[i].cpulist, nodes[i].distance);
	metric("cpus", set_size(&online));
	metric("nodes", node_count);
	count_rounds(1);
}
