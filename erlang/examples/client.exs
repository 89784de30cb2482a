# Talks to a browser at Halley from Elixir, with what Elixir has: Halley is a node like
# any other. Open http://127.0.0.1:8000/test/123 first, then, with Halley's cookie:
#
#     elixir --sname client@localhost erlang/examples/client.exs halley@localhost 123
#
# It ends when the browser closes.

defmodule Client do
  # Halley is a hidden node: it is in Node.list(:hidden), never in Node.list().
  def join(halley) do
    true = Node.connect(halley)
    true = halley in Node.list(:hidden)
  end

  # To a uid, that is to all its browsers. The registered name is that of --register.
  def to_uid(halley, uid) do
    send({:httpd, halley}, {uid, "to the uid\n"})
    {:ok, count} = GenServer.call({:httpd, halley}, {:deliver, uid, ["an ", ~c"iolist", ?\n]})
    IO.puts("handed to #{count}")
  end

  # Each browser has a pid. There is no process behind it; the newest is the last.
  def browsers(halley, uid) do
    pids = GenServer.call({:httpd, halley}, {:whereis, uid})
    ^pids = :rpc.call(halley, :halley, :connections, [uid])
    pids
  end

  # To one browser: a body, or a body with any atom before it, as routers send.
  def to_pid(browser) do
    send(browser, "to the pid\n")
    send(browser, {:router_msg, "with a tag\n"})
  end

  # The same by a call and by rpc.
  def info(halley, browser) do
    info = GenServer.call({:httpd, halley}, {:info, browser})
    %{uid: uid} = :erpc.call(halley, :halley, :info, [browser])
    ^uid = info.uid
    IO.puts("info #{inspect(uid)} #{info.transport} pending #{info.pending}")
  end

  def wait(browser) do
    Process.monitor(browser)

    receive do
      {:DOWN, _, :process, ^browser, reason} -> IO.puts("gone #{inspect(reason)}")
    end
  end
end

[node, uid] = System.argv()
halley = String.to_atom(node)

# A decimal number is an integer uid, anything else a binary.
uid =
  case Integer.parse(uid) do
    {number, ""} -> number
    _ -> uid
  end

Client.join(halley)
Client.to_uid(halley, uid)
pids = Client.browsers(halley, uid)
IO.puts("browsers #{length(pids)}")
browser = List.last(pids)
Client.to_pid(browser)
Client.info(halley, browser)
Client.wait(browser)
