// ceiling: the bare loop, the least that a server of long-lived HTTP streams can do.
// One thread, one epoll. Each message is made here and is one write(2) of one chunk:
// no queue, no protocol behind it, no thread to hand it to.
//
//     ceiling ADDRESS PORT
//
// GET /test/N answers with the head of a chunked stream and keeps the socket under
// uid N; a newer connection of a uid ends the older one. Commands come on standard
// input, one a line; each is answered by one line, in order:
//
//     send COUNT RATE BYTES FIRST LAST
//         COUNT messages of BYTES bytes to uids drawn from FIRST to LAST, RATE a
//         second (0: as fast as it goes); connections are served meanwhile
//     all BYTES
//         one message to each connection, in the order of uids: its number is 0, its
//         time that of the command
//     stats
//
//     sent N bytes B micros T lost L absent A
//     connections N accepted N closed N refused N sent N bytes B lost L absent A
//
// A message begins with its number among those of its uid, from 1, and the time of its
// write in microseconds since 1970: "17 1763692800123456 xxx". bytes counts bodies.
// lost: the socket stayed full for a second, or broke. absent: nobody has the uid; the
// message gets no number. What was read is done at once; the end of input ends all.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_UID = 1 << 21,
    MAX_BODY = 1 << 20,
    MAX_EVENTS = 512,
    MAX_COMMAND = 256,
    BACKLOG = 65535,       // the system cuts it to net.core.somaxconn
    WRITES_A_TURN = 64,    // then it looks for new clients
    FULL_MILLIS = 1000,    // how long a full socket is waited for
    HEAD_ROOM = 16,        // for a chunk's size
    NUMBERS = 48,          // both numbers with their spaces, at most
};

static const char RESPONSE[] = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
static const char NOT_FOUND[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
static const char END_OF_STREAM[] = "0\r\n\r\n";
static const char REQUEST[] = "GET /test/";
static const char HEAD_END[] = "\r\n\r\n";

// user is one uid's place in the table.
struct user {
    int fd; // of its stream plus one; 0: not connected
    uint32_t seq;
    bool stuck; // did not take the last message: is not waited for again
};

// conn is where the request of a socket has been read to; by file descriptor.
struct conn {
    uint32_t uid;
    uint8_t matched; // bytes of REQUEST
    uint8_t ended;   // bytes of HEAD_END
    bool streaming;
};

static struct user users[MAX_UID + 1];
static struct conn *conns;
static int max_fds;
static uint32_t top_uid; // the highest seen
static int epoll_fd, listen_fd, spare_fd;

struct counts {
    int64_t sent, bytes, lost, absent;
};
static struct counts total;
static int64_t open_now, accepted, closed, refused;

// job is the command being done.
static struct {
    bool running;
    int64_t count, rate, done;
    size_t bytes;
    uint32_t first, last;
    int64_t start; // monotonic, nanoseconds
    struct counts before;
} job;

static char *message; // HEAD_ROOM, the body, CR LF

static void die(const char *what) {
    fprintf(stderr, "ceiling: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t nanos(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t next_random(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1d;
}

static void drop(int fd) {
    struct conn *c = &conns[fd];
    if (c->streaming && users[c->uid].fd == fd + 1) {
        users[c->uid].fd = 0;
        open_now--;
    }
    memset(c, 0, sizeof *c);
    close(fd); // leaves the epoll with it
    closed++;
}

static void refuse(int fd) {
    refused++;
    if (write(fd, NOT_FOUND, sizeof NOT_FOUND - 1) < 0) {
        // it is gone; so is the answer
    }
    drop(fd);
}

static void begin_stream(int fd) {
    struct conn *c = &conns[fd];
    if (write(fd, RESPONSE, sizeof RESPONSE - 1) != sizeof RESPONSE - 1) { // a fresh socket takes it whole
        drop(fd);
        return;
    }
    struct user *u = &users[c->uid];
    if (u->fd) {
        if (write(u->fd - 1, END_OF_STREAM, sizeof END_OF_STREAM - 1) < 0) {
            // its stream is cut instead
        }
        drop(u->fd - 1);
    }
    u->fd = fd + 1;
    u->stuck = false;
    c->streaming = true;
    open_now++;
    if (c->uid > top_uid)
        top_uid = c->uid;
}

// read_request takes the request in pieces of any size and keeps only how far it is.
static void read_request(int fd) {
    char buf[4096];
    ssize_t n = read(fd, buf, sizeof buf);
    if (n <= 0) {
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        drop(fd);
        return;
    }
    struct conn *c = &conns[fd];
    if (c->streaming)
        return; // a client has nothing to say
    for (ssize_t i = 0; i < n; i++) {
        char b = buf[i];
        if (c->matched < sizeof REQUEST - 1) {
            if (b != REQUEST[c->matched++]) {
                refuse(fd);
                return;
            }
        } else if (c->matched == sizeof REQUEST - 1) {
            if (b >= '0' && b <= '9') {
                c->uid = c->uid * 10 + (uint32_t)(b - '0');
            } else {
                c->matched++;
            }
            if (c->uid > MAX_UID || (c->matched > sizeof REQUEST - 1 && (c->uid == 0 || b != ' '))) {
                refuse(fd);
                return;
            }
        } else {
            c->ended = b == HEAD_END[c->ended] ? c->ended + 1 : b == '\r';
            if (c->ended == sizeof HEAD_END - 1) {
                begin_stream(fd);
                return;
            }
        }
    }
}

static void accept_all(void) {
    for (int i = 0; i < MAX_EVENTS; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
            // Out of descriptors: take the client off the backlog and send it away, or
            // the loop would never sleep again.
            close(spare_fd);
            if ((fd = accept(listen_fd, NULL, NULL)) >= 0)
                close(fd);
            spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
            refused++;
            continue;
        }
        if (fd < 0)
            return;
        if (fd >= max_fds) {
            close(fd);
            refused++;
            continue;
        }
        accepted++;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
            die("epoll_ctl");
    }
}

// write_whole writes one chunk. A full socket is waited for, unless it was full the
// last time too. 0: not a byte was taken; -1: the stream is broken.
static int write_whole(struct user *u, const char *p, size_t n) {
    int fd = u->fd - 1;
    size_t done = 0;
    int64_t until = 0;
    while (done < n) {
        ssize_t w = write(fd, p + done, n - done);
        if (w >= 0) {
            done += (size_t)w;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -1;
        int64_t now = nanos(CLOCK_MONOTONIC);
        if (until == 0)
            until = now + (u->stuck ? 0 : (int64_t)FULL_MILLIS * 1000000);
        struct pollfd p1 = {.fd = fd, .events = POLLOUT};
        if (now >= until || poll(&p1, 1, (int)((until - now) / 1000000) + 1) == 0) {
            u->stuck = true;
            return done == 0 ? 0 : -1;
        }
    }
    u->stuck = false;
    return 1;
}

// put_number writes n in decimal and a space; it returns the end.
static char *put_number(char *p, uint64_t n) {
    char digits[20];
    int k = 0;
    do
        digits[k++] = (char)('0' + n % 10);
    while (n /= 10);
    while (k)
        *p++ = digits[--k];
    *p++ = ' ';
    return p;
}

// put_size writes the size line of a chunk before p; it returns where it begins.
static char *put_size(char *p, size_t n) {
    *--p = '\n';
    *--p = '\r';
    do
        *--p = "0123456789abcdef"[n % 16];
    while (n /= 16);
    return p;
}

// send_one writes a message. stamp is when it was sent, in microseconds; 0: now,
// and the message is numbered.
static void send_one(uint32_t uid, size_t bytes, uint64_t stamp) {
    struct user *u = &users[uid];
    if (u->fd == 0) {
        total.absent++;
        return;
    }
    char *body = message + HEAD_ROOM;
    char *p = put_number(body, stamp ? 0 : ++u->seq);
    p = put_number(p, stamp ? stamp : (uint64_t)(nanos(CLOCK_REALTIME) / 1000));
    size_t k = (size_t)(p - body);
    memset(p, 'x', NUMBERS - k); // over what longer numbers have left
    size_t n = bytes > k ? bytes : k;
    memcpy(body + n, "\r\n", 2);
    char *begin = put_size(body, n);
    int r = write_whole(u, begin, (size_t)(body - begin) + n + 2);
    memset(body + n, 'x', 2);
    if (r > 0) {
        total.sent++;
        total.bytes += (int64_t)n;
        return;
    }
    total.lost++;
    if (r < 0)
        drop(u->fd - 1);
}

static void answer(int64_t start) {
    printf("sent %lld bytes %lld micros %lld lost %lld absent %lld\n", (long long)(total.sent - job.before.sent),
           (long long)(total.bytes - job.before.bytes), (long long)((nanos(CLOCK_MONOTONIC) - start) / 1000),
           (long long)(total.lost - job.before.lost), (long long)(total.absent - job.before.absent));
    fflush(stdout);
}

static void send_all(size_t bytes) {
    int64_t start = nanos(CLOCK_MONOTONIC);
    uint64_t stamp = (uint64_t)(nanos(CLOCK_REALTIME) / 1000);
    job.before = total;
    for (uint32_t uid = 1; uid <= top_uid; uid++)
        if (users[uid].fd)
            send_one(uid, bytes, stamp);
    answer(start);
}

// work_on does what is due of the job. It returns how many nanoseconds the loop may
// sleep: 0 when there is more to do.
static int64_t work_on(void) {
    int64_t due = job.count;
    if (job.rate > 0) {
        double seconds = (double)(nanos(CLOCK_MONOTONIC) - job.start) / 1e9;
        int64_t until_now = (int64_t)(seconds * (double)job.rate) + 1;
        if (until_now < due)
            due = until_now;
    }
    uint64_t range = (uint64_t)job.last - job.first + 1;
    for (int i = 0; i < WRITES_A_TURN && job.done < due; i++, job.done++)
        send_one(job.first + (uint32_t)(next_random() % range), job.bytes, 0);
    if (job.done == job.count) {
        job.running = false;
        answer(job.start);
        return 0;
    }
    if (job.done < due)
        return 0;
    int64_t next = job.start + (int64_t)((double)job.done / (double)job.rate * 1e9);
    int64_t rest = next - nanos(CLOCK_MONOTONIC);
    return rest > 0 ? rest : 0;
}

static void command(const char *line) {
    long long count, rate, bytes, first, last;
    if (sscanf(line, "send %lld %lld %lld %lld %lld", &count, &rate, &bytes, &first, &last) == 5 && count >= 0 &&
        rate >= 0 && bytes >= 0 && bytes <= MAX_BODY && first >= 1 && last >= first && last <= MAX_UID) {
        job.running = count > 0;
        job.count = count;
        job.rate = rate;
        job.done = 0;
        job.bytes = (size_t)bytes;
        job.first = (uint32_t)first;
        job.last = (uint32_t)last;
        job.start = nanos(CLOCK_MONOTONIC);
        job.before = total;
        if (count == 0)
            answer(job.start);
    } else if (sscanf(line, "all %lld", &bytes) == 1 && bytes >= 0 && bytes <= MAX_BODY) {
        send_all((size_t)bytes);
    } else if (strcmp(line, "stats") == 0) {
        printf("connections %lld accepted %lld closed %lld refused %lld sent %lld bytes %lld lost %lld absent %lld\n",
               (long long)open_now, (long long)accepted, (long long)closed, (long long)refused, (long long)total.sent,
               (long long)total.bytes, (long long)total.lost, (long long)total.absent);
        fflush(stdout);
    } else {
        printf("error: not a command: %s\n", line);
        fflush(stdout);
    }
}

// Commands wait here until the one before is done.
static char input[64 * MAX_COMMAND];
static size_t input_len;

static void read_commands(void) {
    if (input_len == sizeof input) {
        errno = E2BIG;
        die("commands");
    }
    ssize_t n = read(STDIN_FILENO, input + input_len, sizeof input - input_len);
    if (n == 0)
        exit(0);
    if (n < 0 && errno != EINTR && errno != EAGAIN)
        die("read commands");
    if (n > 0)
        input_len += (size_t)n;
}

static void next_commands(void) {
    char *end;
    while (!job.running && (end = memchr(input, '\n', input_len))) {
        *end = 0;
        command(input);
        input_len -= (size_t)(end + 1 - input);
        memmove(input, end + 1, input_len);
    }
}

static void listen_on(const char *address, const char *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &a.sin_addr) != 1) {
        errno = EINVAL;
        die(address);
    }
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listen_fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(listen_fd, BACKLOG) < 0)
        die("listen");
}

static void watch(int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
        die("epoll_ctl");
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: ceiling ADDRESS PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    max_fds = limit.rlim_cur < 2 * MAX_UID ? (int)limit.rlim_cur : 2 * MAX_UID;
    conns = calloc((size_t)max_fds, sizeof *conns);
    message = malloc(HEAD_ROOM + MAX_BODY + NUMBERS + 2);
    spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!conns || !message || epoll_fd < 0)
        die("start");
    memset(message, 'x', HEAD_ROOM + MAX_BODY + NUMBERS + 2);
    listen_on(argv[1], argv[2]);
    watch(listen_fd);
    watch(STDIN_FILENO);
    printf("ready\n");
    fflush(stdout);

    struct epoll_event events[MAX_EVENTS];
    for (;;) {
        struct timespec wait = {0}, *timeout = NULL;
        if (job.running) {
            int64_t rest = work_on();
            wait.tv_sec = rest / 1000000000;
            wait.tv_nsec = rest % 1000000000;
            timeout = &wait;
        }
        if (!job.running && input_len) {
            next_commands();
            if (job.running)
                continue;
            timeout = NULL;
        }
        int n = epoll_pwait2(epoll_fd, events, MAX_EVENTS, timeout, NULL);
        if (n < 0 && errno != EINTR)
            die("epoll_pwait2");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == STDIN_FILENO)
                read_commands();
            else if (fd == listen_fd)
                accept_all();
            else
                read_request(fd);
        }
    }
}
