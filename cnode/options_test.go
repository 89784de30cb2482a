package cnode

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOptions_Validate(t *testing.T) {
	good := DefaultOptions()
	good.Cookie = testCookie
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		flag   string // that the error must quote; "" is valid
		change func(o *Options)
	}{
		{"--name", func(o *Options) { o.Name = "halley" }},
		{"--name", func(o *Options) { o.Name = "@localhost" }},
		{"--name", func(o *Options) { o.Name = "halley@" }},
		{"--name", func(o *Options) { o.Name = "a@b@c" }},
		{"--name", func(o *Options) { o.Name = "a b@c" }},
		{"--name", func(o *Options) { o.Name = strings.Repeat("x", 250) + "@local" }},
		{"", func(o *Options) { o.Name = strings.Repeat("x", 249) + "@local" }},
		{"", func(o *Options) { o.Name = "halley@::1" }},
		{"--cookie", func(o *Options) { o.Cookie = "" }},
		{"--cookie", func(o *Options) { o.Cookie = "not printable\n" }},
		{"--cookie", func(o *Options) { o.Cookie = strings.Repeat("x", 256) }},
		{"", func(o *Options) { o.Cookie = strings.Repeat("x", 255) }},
		{"--connect", func(o *Options) { o.Connect = []string{"ok@localhost", "bad"} }},
		{"--connect", func(o *Options) { o.Connect = []string{o.Name} }},
		{"--register", func(o *Options) { o.Register = "" }},
		{"--register", func(o *Options) { o.Register = "net_kernel" }},
		{"--register", func(o *Options) { o.Register = strings.Repeat("x", 256) }},
		{"", func(o *Options) { o.Login, o.Logout = "router:login", "router:logout" }},
		{"", func(o *Options) { o.Login = strings.Repeat("m", 255) + ":" + strings.Repeat("f", 255) }},
		{"--login", func(o *Options) { o.Login = "router" }},
		{"--login", func(o *Options) { o.Login = ":login" }},
		{"--login", func(o *Options) { o.Login = "router:" }},
		{"--login", func(o *Options) { o.Login = "router:login:2" }},
		{"--login", func(o *Options) { o.Login = strings.Repeat("m", 256) + ":f" }},
		{"--logout", func(o *Options) { o.Logout = "router/logout" }},
		{"--logout", func(o *Options) { o.Logout = "m:" + strings.Repeat("f", 256) }},
		{"", func(o *Options) { o.LoginNode = "app@localhost" }},
		{"--login-node", func(o *Options) { o.LoginNode = "app" }},
		{"--login-node", func(o *Options) { o.LoginNode = o.Name }},
		{"", func(o *Options) { o.LoginFailure = "" }},
		{"", func(o *Options) { o.LoginFailure = "close" }},
		{"--login-failure", func(o *Options) { o.LoginFailure = "kill" }},
		{"", func(o *Options) { o.Presence, o.Inbox = "presence", strings.Repeat("x", 255) }},
		{"--presence", func(o *Options) { o.Presence = "rex" }},
		{"--presence", func(o *Options) { o.Presence = strings.Repeat("x", 256) }},
		{"--inbox", func(o *Options) { o.Inbox = "net_kernel" }},
		{"--dist-listen", func(o *Options) { o.DistListen = "127.0.0.1:http!" }},
		{"--dist-listen", func(o *Options) { o.DistListen = "127.0.0.1:65536" }},
		{"", func(o *Options) { o.DistListen = "127.0.0.1" }},
		{"", func(o *Options) { o.DistListen = "[::1]:0" }},
		{"", func(o *Options) { o.DistListen = "::1" }},
		{"", func(o *Options) { o.DistListen = ":9100" }},
		{"--epmd", func(o *Options) { o.EPMD = "localhost" }},
		{"--epmd", func(o *Options) { o.EPMD = ":0" }},
		{"--epmd", func(o *Options) { o.EPMD = "" }},
		{"--net-ticktime", func(o *Options) { o.NetTickTime = minTickTime - 1 }},
		{"", func(o *Options) { o.NetTickTime = minTickTime }},
		{"--max-packet", func(o *Options) { o.MaxPacket = minMaxPacket - 1 }},
		{"--max-packet", func(o *Options) { o.MaxPacket = maxMaxPacket + 1 }},
		{"", func(o *Options) { o.MaxPacket = maxMaxPacket }},
	} {
		o := good
		tc.change(&o)
		err := o.Validate()
		if tc.flag == "" && err != nil || tc.flag != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.flag)) {
			t.Errorf("%+v: got %v, want an error of %q", o, err, tc.flag)
		}
		if err != nil && len(o.Cookie) > 1 && strings.Contains(err.Error(), o.Cookie) {
			t.Errorf("the error tells the cookie: %v", err)
		}
	}
}

func TestLoadCookie(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, err := LoadCookie("", "")
	if err == nil || !strings.Contains(err.Error(), ".erlang.cookie") || !strings.Contains(err.Error(), "--cookie-file") {
		t.Errorf("no file: %v", err)
	}
	home := write(".erlang.cookie", "home-secret\n", 0o400)
	other := write("other", "other-secret \r\n", 0o600)
	for _, tc := range []struct{ cookie, file, want string }{
		{"given", other, "given"},
		{"", other, "other-secret"},
		{"", "", "home-secret"},
	} {
		if got, err := LoadCookie(tc.cookie, tc.file); got != tc.want || err != nil {
			t.Errorf("%+v: %q, %v", tc, got, err)
		}
	}
	for _, mode := range []os.FileMode{0o440, 0o404, 0o644, 0o620} {
		if err := os.Chmod(home, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadCookie("", "")
		if err == nil || !strings.Contains(err.Error(), "chmod 400 "+home) || !strings.Contains(err.Error(), "0"+strings.TrimPrefix(mode.String(), "-")) && !strings.Contains(err.Error(), "mode 0") {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	for name, text := range map[string]string{"empty": "\n", "two-lines": "secret\nmore\n", "huge": strings.Repeat("secret", 1000)} {
		_, err := LoadCookie("", write(name, text, 0o400))
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadCookie("", dir); err == nil {
		t.Error("a directory is a cookie")
	}
}

func TestLimiter(t *testing.T) {
	var l limiter
	if !l.allow("a") || l.allow("a") || l.allow("a") || !l.allow("b") {
		t.Error("not one line per kind")
	}
	l.kinds["a"].since = time.Now().Add(-time.Second)
	if !l.allow("a") || l.suppressed("a") != 2 || l.suppressed("a") != 0 {
		t.Error("a second later it must say how many were left out")
	}
}
