package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"coalesce/tests/bare"
	"coalesce/tests/lab"
	"coalesce/vcpu/kvm"
	"coalesce/vmm/doctor"
)

// TestUsage: mistakes on the command line end with status 2 and one line that says which.
func TestUsage(t *testing.T) {
	p := newPlace(t)
	k := script(t, "never\n", bare.PowerOff)
	tests := []struct {
		args string // separated by spaces
		want []string
	}{
		{"fly", []string{"fly"}},
		{"run", []string{"--kernel"}},
		{"run --kernel", []string{"--kernel"}},
		{"run --kernel K extra", []string{`"extra"`}},
		{"run --kernel K --colour red", []string{"--colour", "--help"}},
		{"run --kernel K --cpus 0", []string{"--cpus 0"}},
		{"run --kernel K --cpus 1000", []string{"--cpus 1000"}},
		{"run --kernel K --cpus two", []string{"--cpus", "two"}},
		{"run --kernel K --memory much", []string{"--memory", `"much"`, "512M"}},
		{"run --kernel K --memory -1", []string{"--memory", `"-1"`}},
		{"run --kernel K --memory 0", []string{"--memory"}},
		{"run --kernel K --memory 99999999T", []string{"--memory"}},
		{"run --kernel K --cpu quick", []string{"--cpu", `"quick"`, "common", "host"}},
		{"run --kernel K --boot bios", []string{"--boot", `"bios"`, "pvh"}},
		{"run --kernel K --hold soon", []string{"--hold", "soon"}},
		{"run --kernel K --log-level loud", []string{"--log-level", `"loud"`}},
		{"run --kernel K --lender 10.77.1.2", []string{"--lender", "10.77.1.2", "cpus=N"}},
		{"run --kernel K --lender ,cpus=1", []string{"--lender", "address"}},
		{"run --kernel K --lender 10.77.1.2,cpus=many", []string{"--lender", "cpus=many"}},
		{"run --kernel K --lender 10.77.1.2,cpus=1,memory=x", []string{"--lender", "memory=x"}},
		{"run --kernel K --lender 10.77.1.2,cpus=1,distance=10", []string{"--lender", "distance=10", "11 to 254"}},
		{"run --kernel K --lender 10.77.1.2,cpus=1,price=3", []string{"--lender", "price=3"}},
		{"run --kernel K --lender 10.77.1.2:,cpus=1", []string{"--lender", "port", "65535"}},
		{"run --kernel K --lender 10.77.1.2:99999,cpus=1", []string{"--lender", "99999", "65535"}},
		{"run --kernel K --lender 10.77.1.2,cpus=1 --lender 10.77.1.2:7411,cpus=2", []string{"10.77.1.2:7411", "twice"}},
		{"run --kernel K --cpus 40 --lender 10.77.1.2,cpus=40", []string{"80 CPUs", "64"}},
		{"run --kernel K --memory 2T", []string{"1 TiB"}},
		{"run --kernel K --hold 5s", []string{"hold of 5s", "1s"}},
		{"run --kernel K --hold -5ms", []string{"hold of -5ms"}},
		{"lend --guest-memory some", []string{"--guest-memory", `"some"`}},
		{"lend --cpus 0", []string{"--cpus 0"}},
		{"lend --memory much", []string{"--memory", `"much"`}},
		{"lend here", []string{`"here"`}},
		{"doctor here", []string{`"here"`, "coalesce doctor --help"}},
		{"doctor --colour", []string{"--colour", "--help"}},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			args := strings.Fields(strings.ReplaceAll(tt.args, "--kernel K", "--kernel "+k))
			c, err := p.client.Start(lab.Command{Name: "coalesce", Path: files.Program, Args: args})
			if err != nil {
				t.Fatal(err)
			}
			exit(t, c, shortly, 2)
			complaint(t, c, tt.want...)
			if out := c.Stdout.String(); out != "" {
				t.Errorf("standard output: %q", out)
			}
		})
	}
	saw(t, "%d mistakes named, exit status 2 each", len(tests))
}

// TestFiles: kernels, initrds and memory sizes that cannot work end with status 1 and one line with the file's name.
func TestFiles(t *testing.T) {
	p := newPlace(t)
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sparse := func(name string, size int64) string {
		path := write(name, nil)
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		return path
	}
	linux, err := os.ReadFile(files.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	image, err := bare.Script("never\n", bare.PowerOff)
	if err != nil {
		t.Fatal(err)
	}
	k := write("elf", image)
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"kernel missing", []string{"--kernel", "/no/such/kernel"}, []string{"kernel", "/no/such/kernel", "no such file"}},
		{"kernel is a folder", []string{"--kernel", dir}, []string{"kernel", dir}},
		{"kernel is a device", []string{"--kernel", "/dev/null"}, []string{"kernel", "/dev/null"}},
		{"kernel empty", []string{"--kernel", write("empty", nil)}, []string{dir + "/empty", "empty"}},
		{"not a kernel", []string{"--kernel", write("text", []byte(strings.Repeat("This is a letter. ", 1000)))}, []string{dir + "/text", "not a Linux kernel"}},
		{"ELF for another machine", []string{"--kernel", write("arm", append(append([]byte{}, image[:18]...), append([]byte{0xb7, 0}, image[20:]...)...))}, []string{dir + "/arm", "x86-64"}},
		{"bzImage cut in its header", []string{"--kernel", write("cut1", linux[:0x230])}, []string{dir + "/cut1", "truncated"}},
		{"bzImage cut in its body", []string{"--kernel", write("cut2", linux[:len(linux)/2])}, []string{dir + "/cut2", "truncated"}},
		{"ELF cut", []string{"--kernel", write("cut3", image[:len(image)-10])}, []string{dir + "/cut3", "truncated"}},
		{"initrd missing", []string{"--kernel", k, "--initrd", "/no/such/initrd"}, []string{"initrd", "/no/such/initrd", "no such file"}},
		{"initrd too large", []string{"--kernel", k, "--initrd", sparse("large", 300<<20), "--memory", "256M"}, []string{dir + "/large", "too large", "--memory"}},
		{"memory too small for Linux", []string{"--kernel", files.Kernel, "--memory", "16M"}, []string{files.Kernel, "memory", "--memory"}},
		{"command line too long", []string{"--kernel", k, "--append", strings.Repeat("word ", 2000)}, []string{"command line", "too long"}},
		{"no such KVM device", []string{"--kernel", k, "--kvm", "/no/such/kvm"}, []string{"/no/such/kvm"}},
		{"not a KVM device", []string{"--kernel", k, "--kvm", "/dev/null"}, []string{"/dev/null"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := p.run(t, tt.args...)
			exit(t, c, shortly, 1)
			saw(t, "%s", complaint(t, c, tt.want...))
			if out := c.Stdout.String(); out != "" {
				t.Errorf("standard output: %q", out)
			}
		})
	}
}

// TestDoctor: its exit status says whether Linux can run here, and where not, a line why.
func TestDoctor(t *testing.T) {
	p := newPlace(t)
	for device, runs := range map[string]bool{kvm.Device: verdict().CanRunLinux, "/no/such/kvm": false, "/dev/null": false} {
		c, err := p.client.Start(lab.Command{Name: "doctor", Path: files.Program, Args: []string{"doctor", "--json", "--kvm", device}})
		if err != nil {
			t.Fatal(err)
		}
		if runs {
			exit(t, c, shortly, 0)
		} else {
			exit(t, c, shortly, 1)
			saw(t, "%s: %s", device, complaint(t, c, "Linux guests cannot run"))
		}
		var r doctor.Report
		if err := json.Unmarshal([]byte(c.Stdout.String()), &r); err != nil || r.Verdict.CanRunLinux != runs || !strings.Contains(c.Stdout.String(), device) {
			t.Errorf("%s: %v: %s", device, err, c.Stdout)
		}
	}
}

// TestPermissions: a user who may not use /dev/kvm, or not userfaultfd, learns what to do.
func TestPermissions(t *testing.T) {
	const nobody = 65534
	// A folder that nobody may search, with the program and a KVM device for everybody.
	dir, err := os.MkdirTemp("", "coalesce-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, err := os.ReadFile(files.Program)
	if err != nil {
		t.Fatal(err)
	}
	theirs := files
	theirs.Program = filepath.Join(dir, "coalesce")
	k := filepath.Join(dir, "kernel")
	image, err := bare.Script("hello\n", bare.PowerOff)
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{theirs.Program: program, k: image} {
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	closed, group, open := filepath.Join(dir, "kvm-closed"), filepath.Join(dir, "kvm-group"), filepath.Join(dir, "kvm-open")
	var st unix.Stat_t
	if err := unix.Stat("/dev/kvm", &st); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]uint32{closed: 0o600, group: 0o660, open: 0o666} {
		if err := unix.Mknod(path, unix.S_IFCHR|mode, int(st.Rdev)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, os.FileMode(mode)); err != nil {
			t.Fatal(err)
		}
	}
	const theGroup = 4242 // it has no name
	if err := os.Chown(group, 0, theGroup); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t)

	for device, want := range map[string][]string{
		closed: {"crw------- ", "setfacl -m u:$USER:rw " + closed, "as root"},
		group:  {"crw-rw---- ", "usermod -aG 4242", "as root"},
	} {
		for _, role := range [][]string{{"run", "--kernel", k}, {"lend"}} {
			c, err := p.client.Start(lab.Command{Name: role[0], Path: theirs.Program, User: nobody, Args: append(role, "--kvm", device)})
			if err != nil {
				t.Fatal(err)
			}
			exit(t, c, shortly, 1)
			saw(t, "%s", complaint(t, c, append(want, device, "permission denied")...))
		}
	}

	// With the device a guest of one host needs nothing else.
	c, err := theirs.Run(p.client, lab.Command{User: nobody}, "--kernel", k, "--kvm", open, "--memory", "64M")
	if err != nil {
		t.Fatal(err)
	}
	exit(t, c, shortly, 0)

	// A guest on two hosts needs userfaultfd with faults of the kernel, which takes /dev/userfaultfd or a capability.
	p.lend(t, "--cpus", "1")
	c, err = theirs.Run(p.client, lab.Command{User: nobody}, "--kernel", k, "--kvm", open, "--memory", "64M", p.borrow("cpus=1"))
	if err != nil {
		t.Fatal(err)
	}
	exit(t, c, shortly, 1)
	saw(t, "%s", complaint(t, c, "userfaultfd", "/dev/userfaultfd", "setfacl", "CAP_SYS_PTRACE", "vm.unprivileged_userfaultfd=1"))
}
