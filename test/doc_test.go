// Package test drives the built binary from outside: real Erlang nodes on a private
// epmd, raw sockets, net/http and curl. Nothing of Halley is imported.
//
//	go test ./test                  builds the binary; HALLEY_BIN=... takes one that is built
//	HALLEY_OTP_ROOTS=/a:/b          also runs TestOTP with the Erlang in these chroots
//	CI=true                         a missing erl or curl is a failure, not a skip
package test
