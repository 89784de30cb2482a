// cnode: the C node of "A Million-user Comet Application with Mochiweb, part 3", made
// right. libevent's HTTP server holds the streams; a thread for each Erlang node
// receives {Uid, Binary} with ei and hands it to the loop, which writes it as a chunk.
//
//     CNODE_COOKIE=... [ERL_EPMD_PORT=...] cnode [-q] NAME@HOST ADDRESS PORT
//
// Only the loop's thread touches libevent and the table of users; in the article both
// threads do, without a lock. How a message gets from the receiving thread to the loop:
//
//     without -q, one wake for each message: its pointer goes through a pipe, one
//     write(2) and one read(2) each, as the article's hand-over costs when it is made
//     safe in the plainest way;
//
//     with -q, a queue and one wake: the loop is woken when the queue was empty, and
//     takes all that is in it. What it finds for one user leaves in one write.
//
// The pipe holds 8192 pointers, the queue QUEUE messages; then the receiving thread
// waits, TCP fills up, and Erlang suspends the sender. What a client does not read is kept without a bound, as
// libevent does it.
//
// Erlang connects by sending to {AnyName, 'NAME@HOST'}; net_adm:ping is answered.

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ei.h"

enum {
    MAX_UID = 17 * 65536, // the article's
    QUEUE = 1 << 18,      // messages between the threads, with -q; without, as many pointers as a pipe holds
    BACKLOG = 65535,      // the system cuts it to net.core.somaxconn
    HANDSHAKE_SECONDS = 5,
};

struct message {
    struct message *next;
    uint32_t uid;
    size_t len;
    char body[];
};

// Set once, before there are threads.
static bool queued; // -q
static ei_cnode node;
static int wake_in, wake_out; // the pipe

// The queue, with -q.
static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER; // protects the three
static pthread_cond_t queue_room = PTHREAD_COND_INITIALIZER;
static struct message *queue_first, **queue_end = &queue_first;
static int queue_len;

// Of the loop.
static struct evhttp_request *users[MAX_UID + 1];
static struct evbuffer *chunk;

static void die(const char *what) {
    fprintf(stderr, "cnode: %s: %s\n", what, strerror(errno));
    exit(1);
}

// ---- the HTTP side; the loop's thread ----

// on_close is set while a connection has a uid. When the client has left, libevent
// has taken the request from its connection, and it is ours to free; when we end, it
// goes with its connection.
static void on_close(struct evhttp_connection *unused, void *uid) {
    (void)unused;
    struct evhttp_request *request = users[(uintptr_t)uid];
    users[(uintptr_t)uid] = NULL;
    if (!evhttp_request_get_connection(request))
        evhttp_send_reply_end(request);
}

static void fail(struct evhttp_request *request, int code, const char *reason, const char *text) {
    evbuffer_add(chunk, text, strlen(text));
    evhttp_send_reply(request, code, reason, chunk);
    evbuffer_drain(chunk, evbuffer_get_length(chunk));
}

static void on_request(struct evhttp_request *request, void *unused) {
    (void)unused;
    const char *uri = evhttp_request_get_uri(request);
    long uid = strncmp(uri, "/test/", 6) == 0 ? strtol(uri + 6, NULL, 10) : 0;
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", "text/html; charset=utf-8");
    if (uid <= 0) {
        fail(request, 404, "Not Found", "User id not found, try /test/123 instead");
        return;
    }
    if (uid > MAX_UID) {
        char text[64];
        snprintf(text, sizeof text, "Max uid allowed is %d", MAX_UID);
        fail(request, 503, "We ran out of numbers", text);
        return;
    }
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    int on = 1;
    setsockopt(bufferevent_getfd(evhttp_connection_get_bufferevent(connection)), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (users[uid]) { // the newer connection gets the uid, the older one ends
        evhttp_connection_set_closecb(evhttp_request_get_connection(users[uid]), NULL, NULL);
        evhttp_send_reply_end(users[uid]);
    }
    users[uid] = request;
    evhttp_connection_set_closecb(connection, on_close, (void *)(uintptr_t)uid);
    evhttp_send_reply_start(request, 200, "OK");
    evbuffer_add_printf(chunk, "Welcome, Url: '%s' Id: %ld\n", uri, uid);
    evhttp_send_reply_chunk(request, chunk);
}

static void deliver(struct message *m) {
    if (users[m->uid]) {
        evbuffer_add(chunk, m->body, m->len);
        evhttp_send_reply_chunk(users[m->uid], chunk);
        evbuffer_drain(chunk, evbuffer_get_length(chunk)); // it takes the bytes, unless the client is just leaving
    }
    free(m);
}

// on_wake takes one message, or with -q all.
static void on_wake(evutil_socket_t fd, short what, void *unused) {
    (void)what, (void)unused;
    if (!queued) {
        struct message *m;
        if (read(fd, &m, sizeof m) == sizeof m)
            deliver(m);
        return;
    }
    char byte;
    if (read(fd, &byte, 1) != 1)
        return;
    pthread_mutex_lock(&queue_lock);
    struct message *m = queue_first;
    queue_first = NULL;
    queue_end = &queue_first;
    queue_len = 0;
    pthread_cond_broadcast(&queue_room);
    pthread_mutex_unlock(&queue_lock);
    while (m) {
        struct message *next = m->next;
        deliver(m);
        m = next;
    }
}

static void on_signal(evutil_socket_t signal, short what, void *base) {
    (void)signal, (void)what;
    event_base_loopbreak(base);
}

// ---- the Erlang side; a thread for each node ----

static void hand_over(struct message *m) {
    if (!queued) {
        while (write(wake_out, &m, sizeof m) < 0) // waits while the pipe is full
            if (errno != EINTR)
                die("write to the loop");
        return;
    }
    m->next = NULL;
    pthread_mutex_lock(&queue_lock);
    while (queue_len >= QUEUE)
        pthread_cond_wait(&queue_room, &queue_lock);
    bool was_empty = queue_len++ == 0;
    *queue_end = m;
    queue_end = &m->next;
    pthread_mutex_unlock(&queue_lock);
    while (was_empty && write(wake_out, "", 1) < 0)
        if (errno != EINTR)
            die("wake the loop");
}

// take_message reads {Uid, Binary}; NULL: it is something else, which is ignored.
static struct message *take_message(const char *term) {
    int index = 0, version, arity, type, size;
    long long uid;
    if (ei_decode_version(term, &index, &version) < 0 || ei_decode_tuple_header(term, &index, &arity) < 0 || arity != 2 ||
        ei_decode_longlong(term, &index, &uid) < 0 || uid < 1 || uid > MAX_UID ||
        ei_get_type(term, &index, &type, &size) < 0 || type != ERL_BINARY_EXT)
        return NULL;
    struct message *m = malloc(sizeof *m + (size_t)size);
    long len;
    if (!m)
        die("message");
    ei_decode_binary(term, &index, m->body, &len);
    m->uid = (uint32_t)uid;
    m->len = (size_t)len;
    return m;
}

// answer_ping answers the call that net_adm:ping makes: who asks has shown the cookie.
static void answer_ping(int fd, const char *term) {
    int index = 0, version, arity;
    char atom[MAXATOMLEN];
    erlang_pid from;
    if (ei_decode_version(term, &index, &version) < 0 || ei_decode_tuple_header(term, &index, &arity) < 0 || arity != 3 ||
        ei_decode_atom(term, &index, atom) < 0 || strcmp(atom, "$gen_call") != 0 ||
        ei_decode_tuple_header(term, &index, &arity) < 0 || arity != 2 || ei_decode_pid(term, &index, &from) < 0)
        return;
    int tag = index; // goes back as it came
    if (ei_skip_term(term, &index) < 0)
        return;
    int tag_end = index;
    if (ei_decode_tuple_header(term, &index, &arity) < 0 || arity != 2 || ei_decode_atom(term, &index, atom) < 0 ||
        strcmp(atom, "is_auth") != 0)
        return;
    ei_x_buff reply;
    ei_x_new_with_version(&reply);
    ei_x_encode_tuple_header(&reply, 2);
    ei_x_append_buf(&reply, term + tag, tag_end - tag);
    ei_x_encode_atom(&reply, "yes");
    ei_send(fd, &from, reply.buff, reply.index);
    ei_x_free(&reply);
}

static void *receive(void *arg) {
    int fd = (int)(intptr_t)arg;
    ei_x_buff x; // grows with the longest message
    ei_x_new(&x);
    for (;;) {
        erlang_msg msg;
        x.index = 0;
        int got = ei_xreceive_msg(fd, &msg, &x);
        if (got == ERL_ERROR)
            break;
        if (got != ERL_MSG || msg.msgtype != ERL_REG_SEND)
            continue; // a tick, which ei has answered, a link
        struct message *m = take_message(x.buff);
        if (m)
            hand_over(m);
        else if (strcmp(msg.toname, "net_kernel") == 0)
            answer_ping(fd, x.buff);
    }
    ei_x_free(&x);
    close(fd);
    return NULL;
}

static void *accept_nodes(void *arg) {
    int listener = (int)(intptr_t)arg;
    // The handshake's time limit is the socket's, which it has from the listener: ei's
    // own goes through select(2), which writes beyond its stack once streams have the
    // first 1024 descriptors.
    struct timeval limit = {.tv_sec = HANDSHAKE_SECONDS}, none = {0};
    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    for (;;) {
        ErlConnect peer;
        int fd = ei_accept(&node, listener, &peer);
        if (fd < 0)
            continue; // nobody came, or somebody without the cookie
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
        pthread_t thread;
        if (pthread_create(&thread, NULL, receive, (void *)(intptr_t)fd) != 0) {
            close(fd);
            continue;
        }
        pthread_detach(thread);
    }
    return NULL;
}

// publish makes us a node: a listener, which epmd knows.
static void publish(const char *name) {
    char alive[EI_MAXALIVELEN + 1];
    const char *at = strchr(name, '@');
    const char *cookie = getenv("CNODE_COOKIE");
    struct hostent *host = at ? gethostbyname(at + 1) : NULL;
    if (!cookie || !host || host->h_addrtype != AF_INET || at - name > EI_MAXALIVELEN) {
        errno = EINVAL;
        die("CNODE_COOKIE and NAME@HOST");
    }
    memcpy(alive, name, (size_t)(at - name));
    alive[at - name] = 0;
    struct sockaddr_in address = {.sin_family = AF_INET};
    memcpy(&address.sin_addr, host->h_addr_list[0], sizeof address.sin_addr);
    ei_init();
    if (ei_connect_xinit(&node, at + 1, alive, name, &address.sin_addr, cookie, (short)(time(NULL) & 0x7fff)) < 0)
        die("ei_connect_xinit");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 16) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) < 0)
        die("listen for nodes");
    if (ei_publish(&node, ntohs(address.sin_port)) < 0) // stays open: epmd forgets us when it closes
        die("epmd");
    pthread_t thread;
    if (pthread_create(&thread, NULL, accept_nodes, (void *)(intptr_t)listener) != 0)
        die("pthread_create");
    pthread_detach(thread);
}

// ---- both ----

static struct evhttp *serve(struct event_base *base, const char *ip, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, ip, &address.sin_addr) != 1) {
        errno = EINVAL;
        die(ip);
    }
    // evhttp_bind_socket has a backlog of 128: fast ramps wait for SYNs sent again.
    struct evconnlistener *listener =
        evconnlistener_new_bind(base, NULL, NULL, LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_CLOSE_ON_FREE, BACKLOG,
                                (struct sockaddr *)&address, sizeof address);
    struct evhttp *http = evhttp_new(base);
    if (!listener || !http || !evhttp_bind_listener(http, listener))
        die("listen");
    evhttp_set_gencb(http, on_request, NULL);
    return http;
}

static void drain_pipe(void) {
    struct message *m;
    fcntl(wake_in, F_SETFL, O_NONBLOCK);
    while (!queued && read(wake_in, &m, sizeof m) == sizeof m)
        free(m);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "-q") == 0) {
        queued = true;
        argc--, argv++;
    }
    if (argc != 4) {
        fprintf(stderr, "usage: CNODE_COOKIE=... cnode [-q] NAME@HOST ADDRESS PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int ends[2];
    if (pipe(ends) < 0)
        die("pipe");
    wake_in = ends[0];
    wake_out = ends[1];

    struct event_base *base = event_base_new();
    chunk = evbuffer_new();
    if (!base || !chunk)
        die("libevent");
    struct evhttp *http = serve(base, argv[2], argv[3]);
    struct event *wake = event_new(base, wake_in, EV_READ | EV_PERSIST, on_wake, NULL);
    struct event *end = evsignal_new(base, SIGTERM, on_signal, base);
    event_add(wake, NULL);
    event_add(end, NULL);
    publish(argv[1]);
    printf("ready\n");
    fflush(stdout);
    event_base_dispatch(base);

    event_free(wake);
    event_free(end);
    evhttp_free(http);
    evbuffer_free(chunk);
    event_base_free(base);
    drain_pipe();
    return 0;
}
