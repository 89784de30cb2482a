package flood

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ergo-services/ergo/etf"

	"halley/cnode"
)

// Publisher sends numbered messages to a Halley as an Erlang node would, in lists.
type Publisher struct {
	Node     *cnode.Node // connected to To
	To       string      // the Halley node
	Register string      // the name it is registered under
	Rate     float64     // messages a second
	Bytes    int         // of a body; the numbers take what they need
	Count    uint64      // messages in all; 0: until told to end
	FirstUID int64
	LastUID  int64
	// Uniform, zipf or round-robin: who gets the next message.
	Distribution string
	sent         []uint64 // by uid
}

// Distributions are the values of Publisher.Distribution.
var Distributions = []string{"uniform", "zipf", "round-robin"}

// Validate returns every mistake at once, each with the flag that was typed.
func (p *Publisher) Validate() error {
	var errs []error
	if p.Rate <= 0 {
		errs = append(errs, fmt.Errorf("--publish-rate %v must be more than 0", p.Rate))
	}
	if p.Bytes < 0 || p.Bytes > maxBody {
		errs = append(errs, fmt.Errorf("--publish-bytes %d must be from 0 to %d", p.Bytes, maxBody))
	}
	if !slices.Contains(Distributions, p.Distribution) {
		errs = append(errs, fmt.Errorf("--publish-uids %q must be one of %s", p.Distribution, strings.Join(Distributions, ", ")))
	}
	return errors.Join(errs...)
}

const (
	maxBody      = 1 << 20
	maxListBytes = 4 << 20 // bodies in one list
	publishEvery = time.Millisecond
	maxList      = 1000 // messages in one list
	zipfSkew     = 1.2  // rand.NewZipf's s: the first uid of ten thousand gets about a fifth
)

// Run sends until ctx ends, which is no error, or Count are sent. It returns how
// many were.
func (p *Publisher) Run(ctx context.Context) (uint64, error) {
	n := p.LastUID - p.FirstUID + 1
	p.sent = make([]uint64, n)
	pick := p.picker(uint64(n))
	most := max(1, min(maxList, maxListBytes/max(1, p.Bytes)))
	ticker := time.NewTicker(publishEvery)
	defer ticker.Stop()
	start, total := time.Now(), uint64(0)
	for p.Count == 0 || total < p.Count {
		select {
		case <-ctx.Done():
			return total, nil
		case <-ticker.C:
		}
		due := uint64(p.Rate * time.Since(start).Seconds())
		if p.Count > 0 {
			due = min(due, p.Count)
		}
		for total < due && ctx.Err() == nil {
			list := make(etf.List, 0, min(uint64(most), due-total))
			for range cap(list) {
				list = append(list, p.message(pick()))
			}
			if err := p.Node.Send(p.To, p.Register, list); err != nil {
				return total, fmt.Errorf("publish: %w", err)
			}
			total += uint64(len(list))
		}
	}
	return total, nil
}

// Expected is how many messages the connections of a run should have got: flood
// gives connection i the uid FirstUID + i mod their number.
func (p *Publisher) Expected(connections int) uint64 {
	n := uint64(len(p.sent))
	total := uint64(0)
	for i, sent := range p.sent {
		each := uint64(connections) / n
		if uint64(i) < uint64(connections)%n {
			each++
		}
		total += sent * each
	}
	return total
}

func (p *Publisher) picker(n uint64) func() uint64 {
	random := rand.New(rand.NewPCG(1, 2))
	switch p.Distribution {
	case "zipf":
		return rand.NewZipf(random, zipfSkew, 1, n-1).Uint64
	case "round-robin":
		next := n - 1
		return func() uint64 { next = (next + 1) % n; return next }
	}
	return func() uint64 { return random.Uint64N(n) }
}

// message is {Uid, <<"SEQ MICROS xxx">>}.
func (p *Publisher) message(i uint64) etf.Tuple {
	p.sent[i]++
	body := make([]byte, 0, max(p.Bytes, 48))
	body = strconv.AppendUint(body, p.sent[i], 10)
	body = append(body, ' ')
	body = strconv.AppendInt(body, time.Now().UnixMicro(), 10)
	body = append(body, ' ')
	for len(body) < p.Bytes {
		body = append(body, 'x')
	}
	return etf.Tuple{p.FirstUID + int64(i), body}
}
