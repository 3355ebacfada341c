package doctor

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"coalesce/dsm/uffd"
	"coalesce/vcpu/kvm"
)

// TestRunHere examines the host it runs on, prints the report, and holds it against
// what the kernel says of itself.
func TestRunHere(t *testing.T) {
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	r := Run(t.Context(), kvm.Device)
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	t.Logf("this host:\n%s", b.String())

	if n := openFiles(t); n != files {
		t.Errorf("%d files open, %d before", n, files)
	}
	for range 1000 { // one that has said that it is done may not have returned
		if runtime.NumGoroutine() <= goroutines {
			break
		}
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	if maps, err := os.ReadFile("/proc/self/maps"); err != nil || bytes.Contains(maps, []byte("memfd:coalesce")) {
		t.Errorf("guest memory is still mapped (%v)", err)
	}

	got := make(map[string]Status)
	for i, c := range r.Checks {
		if c.Name != probes[i].name || c.Measured == "" {
			t.Errorf("check %d: %+v", i, c)
		}
		if c.Status == OK && (c.Costs != "" || c.Mend != "") {
			t.Errorf("ok, and something to mend: %+v", c)
		}
		got[c.Name] = c.Status
	}
	if _, err := uffd.Probe(); (err == nil) != (got["userfaultfd"] == OK) {
		t.Errorf("userfaultfd is %s, but uffd says %v", got["userfaultfd"], err)
	}
	sys, err := kvm.Open(kvm.Device)
	if err != nil {
		t.Logf("no KVM: %v", err)
		if got["kvm"] == OK || r.Verdict.CanRunLinux {
			t.Errorf("kvm is %s here, verdict %+v", got["kvm"], r.Verdict)
		}
		return
	}
	defer sys.Close()
	if got["kvm"] != OK {
		t.Errorf("kvm is %s", got["kvm"])
	}
	p := &patient{root: os.DirFS("/")}
	module, nested := p.kvmModule()
	var want map[string]Status
	parameter := func(name string) bool { return on(p.file("sys/module/" + module + "/parameters/" + name)) }
	switch {
	case module == "kvm_pvm":
		want = map[string]Status{"ring 0 speed": Missing, "nested paging": Missing, "page-table walks": Missing}
	case nested != "" && !parameter(nested):
		want = map[string]Status{"ring 0 speed": OK, "nested paging": Missing, "page-table walks": Missing}
	case module == "kvm_amd", module == "kvm_intel" && parameter("eptad"):
		want = map[string]Status{"ring 0 speed": OK, "nested paging": OK, "page-table walks": Degraded}
	case module == "kvm_intel":
		want = map[string]Status{"ring 0 speed": OK, "nested paging": OK, "page-table walks": OK}
	}
	for name, status := range want {
		if got[name] != status {
			t.Errorf("%s is %s, but %s says it is %s", name, got[name], module, status)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	// The runtime's poller keeps two descriptors from its first use on.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := Run(ctx, kvm.Device)
	if len(r.Checks) != len(probes) || r.Verdict.CanRunLinux {
		t.Errorf("got %+v", r)
	}
	for _, c := range r.Checks {
		if c.Status != Missing || c.Measured != "not probed: context canceled" {
			t.Errorf("got %+v", c)
		}
	}
}

func TestKernelCheck(t *testing.T) {
	for release, want := range map[string]Status{
		"6.4.0": OK, "6.12.41+deb12-cloud-amd64": OK, "7.0-rc1": OK, "6.18.44-x": OK,
		"6.3.13": Degraded, "5.19.0": Degraded, "6.1.0-9-amd64": Degraded,
		"": Degraded, "Plan 9": Degraded,
	} {
		if c := kernelCheck(release); c.Status != want {
			t.Errorf("%q: got %+v", release, c)
		}
	}
}

// hostFiles is a root file system of /proc and /sys files.
func hostFiles(files map[string]string) fs.FS {
	root := fstest.MapFS{}
	for path, content := range files {
		root[path] = &fstest.MapFile{Data: []byte(content)}
	}
	return root
}

func TestProbeTSC(t *testing.T) {
	const invariant = "processor\t: 0\nflags\t\t: fpu tsc constant_tsc nonstop_tsc svm\n\nprocessor\t: 1\n"
	for name, tc := range map[string]struct {
		current, available, cpuinfo string
		want                        Status
		mend                        string
	}{
		"good":        {"tsc\n", "tsc hpet", invariant, OK, ""},
		"no promise":  {"tsc\n", "tsc hpet", "flags\t: tsc constant_tsc\n", Degraded, "hypervisor"},
		"not chosen":  {"hpet\n", "tsc hpet\n", invariant, Missing, "echo tsc"},
		"not offered": {"hpet\n", "hpet acpi_pm", invariant, Missing, "tsc=reliable"},
		"no sysfs":    {"", "", "", Missing, "tsc=reliable"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &patient{root: hostFiles(map[string]string{
				clocksourcePath + "current_clocksource":   tc.current,
				clocksourcePath + "available_clocksource": tc.available,
				"proc/cpuinfo": tc.cpuinfo,
			})}
			c := probeTSC(p)
			if c.Status != tc.want || !strings.Contains(c.Mend, tc.mend) || p.tsc != (tc.want != Missing) {
				t.Errorf("got %+v, tsc %v", c, p.tsc)
			}
			err := StableTSC(p.root)
			if (err == nil) != p.tsc || err != nil && !strings.Contains(err.Error(), tc.mend) {
				t.Errorf("by itself: %v", err)
			}
		})
	}
}

func TestProbeWalks(t *testing.T) {
	intel := hostFiles(map[string]string{"sys/module/kvm_intel/parameters/eptad": "Y\n"})
	amd := hostFiles(map[string]string{"sys/module/kvm_amd/parameters/npt": "1\n"})
	for name, tc := range map[string]struct {
		p    *patient
		want Status
		mend string
	}{
		"shadow":      {&patient{root: amd}, Missing, ""},
		"intel":       {&patient{root: intel, facts: facts{nested: true}}, OK, ""},
		"intel eptad": {&patient{root: intel, facts: facts{nested: true, walksWrite: true}}, Degraded, "modprobe kvm_intel eptad=0"},
		"amd":         {&patient{root: amd, facts: facts{nested: true, walksWrite: true}}, Degraded, "none here"},
	} {
		if c := probeWalks(tc.p); c.Status != tc.want || !strings.Contains(c.Mend, tc.mend) {
			t.Errorf("%s: got %+v", name, c)
		}
	}
}

func TestNeedKVM(t *testing.T) {
	c := needKVM(func(*patient) Check { panic("called") })(&patient{})
	if c.Status != Missing {
		t.Errorf("got %+v", c)
	}
}

func TestCPUFlag(t *testing.T) {
	p := &patient{root: hostFiles(map[string]string{"proc/cpuinfo": "vendor_id\t: vmx\nflags\t\t: fpu svm\n\nflags : other\n"})}
	for flag, want := range map[string]bool{"svm": true, "fpu": true, "vmx": false, "other": false, "sv": false} {
		if p.cpuFlag(flag) != want {
			t.Errorf("%s is %v", flag, !want)
		}
	}
	if (&patient{root: fstest.MapFS{}}).cpuFlag("svm") {
		t.Error("no /proc has flags")
	}
}

// TestMicroGuestEnds: a guest that cannot go on is an error and not a hang.
func TestMicroGuestEnds(t *testing.T) {
	sys, err := kvm.Open(kvm.Device)
	if errors.Is(err, kvm.ErrNotSupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	undefined := []byte{0x0f, 0x0b} // ud2, with no IDT to go to
	g, err := newMicroGuest(sys, undefined, 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.toDoor(); err == nil || !strings.Contains(err.Error(), "shutdown") {
		t.Errorf("ended with %v", err)
	}
}
