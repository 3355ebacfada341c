package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		verb, line string
		check      func(o *options) bool
	}{
		{"run", "-- ls -l", func(o *options) bool { return reflect.DeepEqual(o.args, []string{"ls", "-l"}) }},
		{"run", "--cpus 4 --memory 2G --thread multi ls", func(o *options) bool {
			return o.cpus == 4 && o.memory == 2048 && o.thread == "multi"
		}},
		{"run", "--memory 512M --timeout 7 ls", func(o *options) bool { return o.memory == 512 && o.timeout == 7*time.Second }},
		{"run", "--file a:/b --file c:/d ls", func(o *options) bool {
			return reflect.DeepEqual(o.files, []copied{{"a", "/b"}, {"c", "/d"}})
		}},
		{"run", "--program /bin/ls --program /bin/ls:/x ls", func(o *options) bool {
			return reflect.DeepEqual(o.progs, []copied{{"/bin/ls", "/bin/ls"}, {"/bin/ls", "/x"}})
		}},
		{"run", "--param kvm_amd:npt=0 ls", func(o *options) bool {
			return reflect.DeepEqual(o.params, []string{"kvm-amd.ko npt=0"})
		}},
		{"run", "--env A=b=c ls", func(o *options) bool { return reflect.DeepEqual(o.env, []string{"A=b=c"}) }},
		{"test", "./a ./b -- -test.v", func(o *options) bool {
			return reflect.DeepEqual(o.args, []string{"./a", "./b"}) && reflect.DeepEqual(o.rest, []string{"-test.v"})
		}},
		{"run", "ls", func(o *options) bool { return o.cpus == 2 && o.memory == 3000 && o.timeout == 600*time.Second }},
		{"run", "--machine intel --cpus 2 ls", func(o *options) bool { return o.cpus == 2 && o.memory == 1024 }},
		{"shell", "", func(o *options) bool { return o.tty }},
		{"run", "--help", func(o *options) bool { return o.help }},
	} {
		t.Run(c.verb+" "+c.line, func(t *testing.T) {
			o := newOptions(c.verb)
			if err := o.parse(strings.Fields(c.line)); err != nil {
				t.Fatal(err)
			}
			if !c.check(o) {
				t.Errorf("parsed as %+v", o)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ verb, line, want string }{
		{"run", "", "no command"},
		{"run", "--cpus -1 ls", "1 to 64"},
		{"run", "--machine vax ls", "amd or intel"},
		{"run", "--thread both ls", "single or multi"},
		{"run", "--memory 12x ls", "give a size"},
		{"run", "--memory 1M ls", "give a size"},
		{"run", "--timeout 0 ls", "give seconds"},
		{"run", "--file a ls", "give FROM:TO"},
		{"run", "--program ls ls", "absolute"},
		{"run", "--param npt=0 ls", "MODULE:NAME=VALUE"},
		{"run", "--env =x ls", "NAME=VALUE"},
		{"run", "--nonsense ls", "nonsense"},
		{"test", "-- -test.v", "no package"},
		{"shell", "ls", "no command"},
	} {
		t.Run(c.verb+" "+c.line, func(t *testing.T) {
			err := newOptions(c.verb).parse(strings.Fields(c.line))
			e, ok := err.(*exitError)
			if !ok || e.status != 2 || !strings.Contains(e.message, c.want) {
				t.Errorf("error is %#v, want status 2 and %q", err, c.want)
			}
		})
	}
}
