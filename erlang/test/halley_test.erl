%% What the suites share: Erlang nodes, Halley's binary, an HTTP client.
%%
%% The nodes are real ones in an EPMD of their own, so nothing here meets the
%% machine's. The node that runs the suites is not distributed; it commands the
%% others through a TCP connection (peer). Every outside process ends when this
%% Erlang does, however it ends.
-module(halley_test).

-export([doc/1]).
-export([do_eventually/1]).

%% Erlang nodes.
-export([do_start_epmd/1]).
-export([do_stop_epmd/1]).
-export([do_start_node/3]).
-export([do_stop_node/1]).
-export([do_kill_node/1]).
-export([do_name/1]).
-export([do_on/2]).
-export([do_on/3]).
-export([do_start_app/2]).
-export([do_keep/1]).
-export([do_kept/1]).

%% Halley.
-export([do_need_halley/1]).
-export([do_need_flag/2]).
-export([do_start_halley/2]).
-export([do_start_halley/3]).
-export([do_start_halley/4]).
-export([do_stop_halley/1]).
-export([do_kill_halley/1]).

%% HTTP.
-export([do_get/2]).
-export([do_login/2]).
-export([do_chunk/1]).
-export([do_chunks/2]).

-define(COOKIE, "halley_test").
-define(WAIT_MS, 15000).

doc(Text) ->
    ct:comment(Text),
    ct:log("~ts", [Text]).

%% Wait until Fun answers true. Anything else it answered last is the error.
do_eventually(Fun) ->
    do_eventually(Fun, erlang:monotonic_time(millisecond) + ?WAIT_MS).

do_eventually(Fun, Until) ->
    case Fun() of
        true ->
            ok;
        Result ->
            case erlang:monotonic_time(millisecond) > Until of
                true ->
                    error({not_in_time, Result});
                false ->
                    timer:sleep(20),
                    do_eventually(Fun, Until)
            end
    end.

%% Erlang nodes.

do_start_epmd(Config) ->
    case os:find_executable("epmd") of
        false ->
            do_miss("no epmd in the path");
        Epmd ->
            Port = do_free_port(),
            Run = do_run([Epmd, "-address", "127.0.0.1", "-port", integer_to_list(Port)]),
            ok = do_eventually(fun() -> do_is_open(Port) end),
            [{epmd, Run}, {epmd_port, Port} | Config]
    end.

do_stop_epmd(Config) ->
    do_end(proplists:get_value(epmd, Config)).

%% A node of that name, with the application in its path.
do_start_node(Config, Name, Args) ->
    Port = integer_to_list(proplists:get_value(epmd_port, Config)),
    {ok, Peer, Node} = peer:start(#{
        name => Name,
        host => "localhost",
        longnames => false,
        connection => 0,
        %% The machine may be busy with much else.
        wait_boot => 60000,
        env => [{"ERL_EPMD_PORT", Port}],
        args => ["-start_epmd", "false", "-setcookie", ?COOKIE, "-kernel", "logger_level", "warning",
            "-pa", filename:dirname(code:which(halley)), filename:dirname(code:which(?MODULE)) | Args]
    }),
    {Peer, Node}.

do_stop_node({Peer, _}) ->
    try
        peer:stop(Peer)
    catch
        %% It ended already, or was killed.
        exit:_ -> ok
    end.

do_kill_node(Node = {Peer, _}) ->
    do_kill(do_on(Node, fun os:getpid/0)),
    ok = do_eventually(fun() -> not is_process_alive(Peer) end).

do_name(Prefix) ->
    lists:concat([Prefix, "_", os:getpid(), "_", erlang:unique_integer([positive])]).

%% Run Fun on the node; what it raises is raised here.
do_on({Peer, _}, Fun) ->
    peer:call(Peer, erlang, apply, [Fun, []], 60000).

do_on({Peer, _}, Fun, Args) ->
    peer:call(Peer, erlang, apply, [Fun, Args], 60000).

do_start_app(Node, Env) ->
    do_on(Node, fun() ->
        _ = application:load(halley),
        ok = application:set_env([{halley, Env}]),
        {ok, _} = application:ensure_all_started(halley),
        ok
    end).

%% Halley.

%% Config with the binary in it. Without one the cases are skipped, but not in
%% CI, where it has been built before.
do_need_halley(Config) ->
    Bin = case os:getenv("HALLEY_BIN") of
        false -> filename:join(do_top(filename:dirname(code:which(?MODULE))), "halley");
        Env -> filename:absname(Env)
    end,
    case filelib:is_regular(Bin) of
        true -> [{halley_bin, Bin} | Config];
        false -> do_miss("no binary at " ++ Bin ++ "; see HALLEY_BIN")
    end.

%% And a binary that has the flag: one that was built earlier may not.
do_need_flag(Flag, Config0) ->
    case do_need_halley(Config0) of
        Config when is_list(Config) ->
            Help = os:cmd("'" ++ proplists:get_value(halley_bin, Config) ++ "' serve --help 2>&1"),
            case re:run(Help, Flag ++ "\\b") of
                {match, _} -> Config;
                nomatch -> do_miss("the binary has no " ++ Flag)
            end;
        Missing ->
            Missing
    end.

do_miss(Reason) ->
    case os:getenv("CI") of
        "true" -> ct:fail(Reason);
        _ -> {skip, Reason}
    end.

do_top(Dir) ->
    case filelib:is_regular(filename:join(Dir, "go.mod")) of
        true -> Dir;
        false when Dir =:= "/" -> ".";
        false -> do_top(filename:dirname(Dir))
    end.

do_start_halley(Config, Connect) ->
    do_start_halley(Config, Connect, do_name("halley")).

do_start_halley(Config, Connect, Name) ->
    do_start_halley(Config, Connect, Name, []).

%% Started and listening; connected to the nodes soon after.
do_start_halley(Config, Connect, Name, Args) ->
    Node = Name ++ "@localhost",
    Run = do_run([
        proplists:get_value(halley_bin, Config), "serve",
        "--name", Node,
        "--cookie", ?COOKIE,
        "--epmd", "127.0.0.1:" ++ integer_to_list(proplists:get_value(epmd_port, Config)),
        "--listen", "127.0.0.1:0",
        "--admin", "",
        "--max-connections", "1000"
        | lists:append([["--connect", atom_to_list(Peer)] || {_, Peer} <- Connect]) ++ Args
    ]),
    ok = do_eventually(fun() ->
        case do_port(Run) of
            undefined -> do_lines(Run);
            _ -> true
        end
    end),
    Run#{node => list_to_atom(Node), name => Name, port => do_port(Run)}.

do_stop_halley(Halley) ->
    ct:log("~ts", [lists:join("\n", do_lines(Halley))]),
    do_end(Halley).

do_kill_halley(#{pid := Pid}) ->
    do_kill(Pid).

do_port(Run) ->
    Found = [Port || Line <- do_lines(Run),
        {match, [Port]} <- [re:run(Line, "msg=\"?listening\"?.* addr=127\\.0\\.0\\.1:([0-9]+)",
            [{capture, all_but_first, list}])]],
    case Found of
        [] -> undefined;
        [Port | _] -> list_to_integer(Port)
    end.

%% Outside processes.

%% A process keeps the port, and with it the outside process's life: the shell
%% kills its child when its own input ends.
-define(SHELL, "\"$@\" & p=$!; echo \"pid=$p\"; cat > /dev/null; kill -9 $p").

do_run(Command) ->
    Self = self(),
    Keeper = spawn(fun() ->
        Port = open_port({spawn_executable, "/bin/sh"},
            [{args, ["-c", ?SHELL, "sh" | Command]}, {line, 65536}, stderr_to_stdout]),
        receive
            {Port, {data, {eol, "pid=" ++ Pid}}} -> Self ! {self(), Pid}
        end,
        do_keep(Port, [])
    end),
    receive
        {Keeper, Pid} -> #{keeper => Keeper, pid => Pid}
    after ?WAIT_MS ->
        error({not_started, Command})
    end.

do_keep(Port, Lines) ->
    receive
        {Port, {data, {_, Line}}} ->
            do_keep(Port, [Line | Lines]);
        {lines, From, Ref} ->
            From ! {Ref, lists:reverse(Lines)},
            do_keep(Port, Lines);
        stop ->
            port_close(Port)
    end.

do_lines(#{keeper := Keeper}) ->
    Ref = make_ref(),
    Keeper ! {lines, self(), Ref},
    receive
        {Ref, Lines} -> Lines
    after ?WAIT_MS ->
        []
    end.

do_end(#{keeper := Keeper, pid := Pid}) ->
    Keeper ! stop,
    do_eventually(fun() -> os:cmd("kill -0 " ++ Pid ++ " 2>&1") =/= "" end);
do_end(undefined) ->
    ok.

do_kill(Pid) ->
    [] = os:cmd("kill -9 " ++ Pid),
    ok.

do_free_port() ->
    {ok, Socket} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Socket),
    ok = gen_tcp:close(Socket),
    Port.

do_is_open(Port) ->
    case gen_tcp:connect({127, 0, 0, 1}, Port, []) of
        {ok, Socket} -> gen_tcp:close(Socket) =:= ok;
        {error, Reason} -> Reason
    end.

%% HTTP.

%% Ask for Path; the answer's head is read, its body is not.
do_get(#{port := Port}, Path) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port,
        [binary, {active, false}, {packet, http_bin}, {nodelay, true}]),
    ok = gen_tcp:send(Socket, ["GET ", Path, " HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
    {ok, {http_response, {1, 1}, Status, _}} = gen_tcp:recv(Socket, 0, ?WAIT_MS),
    ok = do_skip_headers(Socket),
    {Status, Socket}.

do_skip_headers(Socket) ->
    case gen_tcp:recv(Socket, 0, ?WAIT_MS) of
        {ok, http_eoh} -> ok;
        {ok, {http_header, _, _, _, _}} -> do_skip_headers(Socket)
    end.

%% A browser of Uid. Its welcome chunk says that it is logged in.
do_login(Halley, Uid) ->
    {200, Socket} = do_get(Halley, "/test/" ++ Uid),
    <<"Welcome", _/binary>> = do_chunk(Socket),
    Socket.

%% The next chunk; <<>> is the last one, closed the end without it.
do_chunk(Socket) ->
    ok = inet:setopts(Socket, [{packet, line}]),
    case gen_tcp:recv(Socket, 0, ?WAIT_MS) of
        {ok, Line} ->
            Size = binary_to_integer(string:trim(Line), 16),
            ok = inet:setopts(Socket, [{packet, raw}]),
            {ok, Rest} = gen_tcp:recv(Socket, Size + 2, ?WAIT_MS),
            <<Chunk:Size/binary, "\r\n">> = Rest,
            Chunk;
        {error, Reason} ->
            Reason
    end.

do_chunks(Socket, N) ->
    [do_chunk(Socket) || _ <- lists:seq(1, N)].

%% What a process runs that keeps what it gets; do_kept/1 gives it, oldest first.
do_keep(Kept) ->
    receive
        {kept, From} ->
            From ! {self(), lists:reverse(Kept)},
            do_keep(Kept);
        Message ->
            do_keep([Message | Kept])
    end.

do_kept(Pid) ->
    Pid ! {kept, self()},
    receive
        {Pid, Kept} -> Kept
    end.
