/* The floor: what two blocking C programs reach over the same sockets with the same frames. Each reads what is
 * there in one call and answers it in one call, compares every message, and speaks with the process that measures
 * as the sides in Python do.
 *
 *     floor echo|one-way SIZE WINDOW DAMAGED [PORT]        without PORT: the server
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 4, BATCH = 65536 };

static size_t size, frame, ring;
static unsigned char *true_frames, *sent_frames;
static int sock;

/* What has been read and not been taken. */
static unsigned char *held;
static size_t capacity, start, end;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void put_header(unsigned char *at, size_t length) {
    uint32_t big = htonl((uint32_t)length);
    memcpy(at, &big, HEADER);
}

static void make_messages(size_t message_size, int is_damaged) {
    size = message_size;
    frame = HEADER + size;
    ring = BATCH / frame > 4 ? BATCH / frame : 4;
    true_frames = malloc(ring * frame);
    sent_frames = malloc(ring * frame);
    capacity = frame > BATCH ? frame : 8 * BATCH;
    held = aligned_alloc(64, (capacity + 63) / 64 * 64);
    if (!true_frames || !sent_frames || !held) fail("malloc");
    uint32_t random = 1;
    for (size_t i = 0; i < ring; i++) {
        put_header(true_frames + i * frame, size);
        for (size_t j = HEADER; j < frame; j++) {
            random = random * 1664525 + 1013904223;
            true_frames[i * frame + j] = (unsigned char)(random >> 24);
        }
    }
    memcpy(sent_frames, true_frames, ring * frame);
    sent_frames[frame - 1] ^= (unsigned char)is_damaged;
}

static void write_all(const unsigned char *data, size_t length) {
    while (length) {
        ssize_t written = send(sock, data, length, MSG_NOSIGNAL);
        if (written <= 0) exit(0);
        data += written;
        length -= (size_t)written;
    }
}

/* Send messages of the round from `first` on, as many as lie together, in one call; return how many. */
static size_t send_some(size_t first, size_t most) {
    size_t at = first % ring;
    size_t number = most < ring - at ? most : ring - at;
    write_all(sent_frames + at * frame, number * frame);
    return number;
}

static void read_more(void) {
    if (start == end) start = end = 0;
    if (capacity - end < frame) {
        memmove(held, held + start, end - start);
        end -= start;
        start = 0;
    }
    /* Of large frames never more than one, so that none has to be moved. */
    size_t most = frame > BATCH ? frame - (end - start) : capacity - end;
    ssize_t got = recv(sock, held + end, most, 0);
    if (got <= 0) exit(0);
    end += (size_t)got;
}

/* The length of the frame that is there as a whole, header included; 0 if there is none. */
static size_t whole(void) {
    uint32_t big;
    if (end - start < HEADER) return 0;
    memcpy(&big, held + start, HEADER);
    size_t length = HEADER + ntohl(big);
    return end - start < length ? 0 : length;
}

/* Take one message; return whether it is the round's `number`th. */
static int take(size_t number) {
    size_t length;
    while (!(length = whole())) read_more();
    int is_right = length == frame && !memcmp(held + start, true_frames + number % ring * frame, frame);
    start += length;
    return is_right;
}

static void send_number(size_t number) {
    unsigned char small[64];
    int length = snprintf((char *)small + HEADER, sizeof small - HEADER, "%zu", number);
    put_header(small, (size_t)length);
    write_all(small, HEADER + (size_t)length);
}

static size_t take_number(void) {
    char text[32] = "";
    size_t length;
    while (!(length = whole())) read_more();
    memcpy(text, held + start + HEADER, length - HEADER < 31 ? length - HEADER : 31);
    start += length;
    return strtoul(text, NULL, 10);
}

static void serve_echo(void) {
    for (;;) {
        size_t from, length;
        while (!whole()) read_more();
        for (from = start; (length = whole());) start += length;
        write_all(held + from, start - from);
    }
}

static void serve_one_way(void) {
    for (;;) {
        size_t wrong = 0, count = take_number();
        for (size_t i = 0; i < count; i++) wrong += !take(i);
        send_number(wrong);
    }
}

static size_t echo(size_t count, size_t window) {
    size_t sent = 0, taken = 0, wrong = 0;
    while (taken < count) {
        size_t most = count - sent < window - (sent - taken) ? count - sent : window - (sent - taken);
        while (most) {
            size_t number = send_some(sent, most);
            sent += number;
            most -= number;
        }
        do wrong += !take(taken++);
        while (taken < sent && whole());
    }
    return wrong;
}

static size_t one_way(size_t count) {
    send_number(count);
    for (size_t sent = 0; sent < count;) sent += send_some(sent, count - sent);
    return take_number();
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void drive(int is_echo, size_t window) {
    long count;
    printf("connected\n");
    fflush(stdout);
    while (scanf("%ld", &count) == 1) {
        double began = now();
        size_t wrong = is_echo ? echo((size_t)count, window) : one_way((size_t)count);
        printf("%.9f %zu\n", now() - began, wrong);
        fflush(stdout);
    }
}

static void open_socket(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof address;
    int one = 1, made = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (port) {
        if (connect(made, (struct sockaddr *)&address, length)) fail("connect");
        sock = made;
    } else {
        if (bind(made, (struct sockaddr *)&address, length) || listen(made, 1)) fail("listen");
        getsockname(made, (struct sockaddr *)&address, &length);
        printf("127.0.0.1:%d\n", ntohs(address.sin_port));
        fflush(stdout);
        if ((sock = accept(made, NULL, NULL)) < 0) fail("accept");
    }
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    int is_echo = !strcmp(argv[1], "echo");
    make_messages(strtoul(argv[2], NULL, 10), atoi(argv[4]));
    open_socket(argc > 5 ? atoi(argv[5]) : 0);
    if (argc > 5) drive(is_echo, strtoul(argv[3], NULL, 10));
    else if (is_echo) serve_echo();
    else serve_one_way();
    return 0;
}
