# Talks to a browser at Halley from Elixir, with what Elixir has: Halley is a node like
# any other. Open http://127.0.0.1:8000/test/123 first, then, with Halley's cookie:
#
#     elixir --sname client@localhost erlang/examples/client.exs halley@localhost 123
#
# It ends when the browser closes.

[node, uid] = System.argv()
halley = String.to_atom(node)

# A decimal number is an integer uid, anything else a binary.
uid =
  case Integer.parse(uid) do
    {number, ""} -> number
    _ -> uid
  end

# Halley is a hidden node: it is in Node.list(:hidden), never in Node.list().
true = Node.connect(halley)
true = halley in Node.list(:hidden)

# To a uid, all its browsers. The registered name is that of --register.
send({:httpd, halley}, {uid, "to the uid\n"})
{:ok, count} = GenServer.call({:httpd, halley}, {:deliver, uid, ["an ", ~c"iolist", ?\n]})
IO.puts("handed to #{count}")

# Each browser has a pid, which is no process: it costs nothing until one sends to it.
pids = GenServer.call({:httpd, halley}, {:whereis, uid})
IO.puts("browsers #{length(pids)}")
browser = List.last(pids)

# To one browser: a body, or a body with any atom in front, as routers send.
ref = Process.monitor(browser)
send(browser, "to the pid\n")
send(browser, {:router_msg, "with a tag\n"})

info = GenServer.call({:httpd, halley}, {:info, browser})
IO.puts("info #{inspect(info.uid)} #{info.transport} pending #{info.pending}")

# The same by rpc, as from the shell.
^pids = :rpc.call(halley, :halley, :connections, [uid])
%{uid: ^uid} = :erpc.call(halley, :halley, :info, [browser])

receive do
  {:DOWN, ^ref, :process, ^browser, reason} -> IO.puts("gone #{inspect(reason)}")
end
