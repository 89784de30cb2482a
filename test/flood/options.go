package flood

import (
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Options says what to open and what to do with it. Each field names its flag.
type Options struct {
	URL         string        // --url, with {uid}
	Connections int           // --connections
	Rate        float64       // --rate: connections opened a second; 0: as fast as the server answers
	Hold        time.Duration // --hold: how long to go on when all are open; 0: until told to end
	From        []netip.Addr  // --from: source addresses; none: the system chooses, ports too
	FirstUID    int64         // --uids
	LastUID     int64
	Churn       float64       // --churn: connections closed and opened again, a second
	Stall       float64       // --stall: the share of connections that never read, 0 to 1
	Report      time.Duration // --report: pause between two reports
	// First is the number of the first connection and Ports the range of source
	// ports, which differ where several processes share the work.
	First     int
	FirstPort int
	LastPort  int
}

const (
	minPort = 1024 // below are the system's
	maxPort = 65535
	// fileReserve is what a process needs beside its connections.
	fileReserve = 64
)

// DefaultOptions is a small run against a Halley with its default addresses.
func DefaultOptions() Options {
	return Options{
		URL:         "http://127.0.0.1:8000/test/{uid}",
		Connections: 1000,
		Rate:        1000,
		Hold:        time.Minute,
		FirstUID:    1,
		LastUID:     10000,
		Report:      10 * time.Second,
		FirstPort:   minPort,
		LastPort:    maxPort,
	}
}

// Validate returns every mistake at once, each with the flag that was typed.
func (o *Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, _, err := o.target(); err != nil {
		bad("--url %q %w", o.URL, err)
	}
	if o.Connections < 1 {
		bad("--connections %d must be 1 or more", o.Connections)
	}
	if o.Rate < 0 || o.Churn < 0 {
		bad("--rate and --churn must be 0 or more")
	}
	if o.Stall < 0 || o.Stall > 1 {
		bad("--stall %v must be from 0%% to 100%%", o.Stall)
	}
	if o.FirstUID < 1 || o.LastUID < o.FirstUID {
		bad("--uids %d-%d must be two numbers from 1, the lower one first", o.FirstUID, o.LastUID)
	}
	if o.Report <= 0 || o.Hold < 0 {
		bad("--report must be more than 0, --hold 0 or more")
	}
	if room := len(o.From) * (o.LastPort - o.FirstPort + 1); len(o.From) > 0 && o.Connections > room {
		bad("--from has %d addresses, %d ports in all, too few for %d connections: %d addresses are needed",
			len(o.From), room, o.Connections, (o.Connections+maxPort-minPort)/(maxPort-minPort+1))
	}
	return errors.Join(errs...)
}

// target resolves the URL: where to connect, and what to ask for, with {uid}
// still in it.
func (o *Options) target() (addr netip.AddrPort, request string, err error) {
	if strings.Count(o.URL, "{uid}") != 1 {
		return addr, "", errors.New("must have {uid} once")
	}
	u, err := url.Parse(strings.Replace(o.URL, "{uid}", "UID", 1))
	if err != nil {
		return addr, "", err
	}
	if u.Scheme != "http" || u.Host == "" {
		return addr, "", errors.New("must be http://host:port/path")
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	tcp, err := net.ResolveTCPAddr("tcp", host)
	if err != nil {
		return addr, "", err
	}
	addr = tcp.AddrPort()
	path := strings.Replace(u.RequestURI(), "UID", "{uid}", 1)
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()),
		"GET " + path + " HTTP/1.1\r\nHost: " + u.Host + "\r\nUser-Agent: halley-flood\r\n\r\n", nil
}

// ParseFrom reads source addresses: single ones and ranges, with commas.
func ParseFrom(text string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, piece := range strings.Split(text, ",") {
		low, high, isRange := strings.Cut(piece, "-")
		a, err := netip.ParseAddr(low)
		if err != nil {
			return nil, fmt.Errorf("%q is no address", low)
		}
		b := a
		if isRange {
			if b, err = netip.ParseAddr(high); err != nil {
				return nil, fmt.Errorf("%q is no address", high)
			}
		}
		if n := new(big.Int).Sub(toInt(b), toInt(a)); a.Is4() != b.Is4() || n.Sign() < 0 || n.Cmp(big.NewInt(maxFrom)) >= 0 {
			return nil, fmt.Errorf("%q must be a range upwards of at most %d addresses", piece, maxFrom)
		}
		for ; ; a = a.Next() {
			addrs = append(addrs, a)
			if a == b {
				break
			}
		}
	}
	return addrs, nil
}

const maxFrom = 65536

func toInt(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

// ParseUIDs reads a range such as 1-10000, or one number.
func ParseUIDs(text string) (first, last int64, err error) {
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	if first, err = strconv.ParseInt(low, 10, 64); err == nil {
		last, err = strconv.ParseInt(high, 10, 64)
	}
	if err != nil || first < 1 || last < first {
		return 0, 0, fmt.Errorf("%q must be a range such as 1-10000", text)
	}
	return first, last, nil
}

// ParseShare reads a percentage such as 10%, or a fraction.
func ParseShare(text string) (float64, error) {
	digits, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(digits, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, fmt.Errorf("%q must be a share such as 10%%", text)
	}
	return v, nil
}
