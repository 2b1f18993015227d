// A client of `netasync/1` in plain Node, written from `docs/wire.md` alone; the comments name its sections.
//
//     node client.mjs HOST PORT '{"send": [5, 0, 1048576], "expect": 3}'
//
// sends messages of these lengths, takes so many, closes, and prints what it took and counted.
import { createHash } from "node:crypto";
import net from "node:net";

const [MESSAGE, HELLO, PING, PONG, ACK, PART, CLOSE, REFUSE, ASK, MOVE] = [-1, 1, 2, 3, 4, 5, 6, 7, 8, 9];
const LONGEST_PART = 262144, LONGEST_BODY = 65535;
const NOBODY = Buffer.alloc(16);

const u16 = (number) => { const bytes = Buffer.alloc(2); bytes.writeUInt16BE(number); return bytes; };
const u32 = (number) => { const bytes = Buffer.alloc(4); bytes.writeUInt32BE(number); return bytes; };
const u64 = (number) => { const bytes = Buffer.alloc(8); bytes.writeBigUInt64BE(BigInt(number)); return bytes; };
const readU64 = (body, at) => Number(body.readBigUInt64BE(at));
const cost = (...messages) => messages.reduce((sum, message) => sum + message.length + 64, 0);
const control = (type, ...fields) => {
  const body = Buffer.concat(fields);
  return Buffer.concat([u32((0x80 + type) * 2 ** 24 + body.length), body]);
};
const must = (isSo, rule) => { if (!isSo) throw new Error(rule); };

/** The frames of one message (§5). */
function cut(message) {
  const frames = [];
  let at = message.length > LONGEST_PART ? LONGEST_PART - 4 : 0;
  if (at) frames.push(control(PART, u32(message.length), message.subarray(0, at)));
  for (; message.length - at > LONGEST_PART; at += LONGEST_PART)
    frames.push(control(PART, message.subarray(at, at + LONGEST_PART)));
  return [...frames, Buffer.concat([u32(message.length - at), message.subarray(at)])];
}

export class Client {
  link = 0; session = NOBODY; token = NOBODY;
  kept = []; // to be sent: the messages from the peer's `consumed` on, begun or not
  inbox = []; taken = []; // received
  counts = { links: 0, resumed: 0, redelivered: 0, waits: 0, pings: 0 };
  isClosing = false; isOver = false;

  constructor(host, port, options) {
    const limits = { window: 2 ** 22, maxMessages: 65536, hold: 2 ** 22, maxSize: 2 ** 24 };
    const times = { interval: 5000, timeout: 20000, openTimeout: 10000, backOff: 20, takeEvery: 0 };
    Object.assign(this, { host, port, ...limits, ...times, ...options });
    this.ended = new Promise((resolve) => { this.end = resolve; });
    this.count();
    this.dial();
    this.clock = setInterval(() => this.tick(), Math.min(50, this.interval / 4, this.takeEvery || 50));
  }

  /** §3.3: a new session, both sides count from 0. */
  count() {
    this.older = this.inbox.length;
    this.olderCost = cost(...this.inbox);
    Object.assign(this, { received: 0, receivedCost: 0, consumed: 0, consumedCost: 0, told: { consumed: 0, credit: 0 } });
    Object.assign(this, { begun: 0, next: 0, nextCost: 0, confirmedCost: 0, heard: { consumed: 0, credit: 0 } });
  }

  forget() { this.session = this.token = NOBODY; this.count(); }

  credit() { return this.consumedCost + Math.max(0, this.window - this.olderCost); }

  dial() {
    this.socket = net.connect({ host: this.host, port: this.port, noDelay: true });
    Object.assign(this, { input: Buffer.alloc(0), chunks: [], missing: 4, large: null, frames: [], asks: [] });
    Object.assign(this, { isUp: false, isFirst: true, saidClose: false, heardClose: null, untold: null });
    this.dialled = this.lastRead = this.lastWrite = Date.now();
    this.socket.on("connect", () => this.write(this.hello())).on("drain", () => this.pump());
    this.socket.on("data", (bytes) => this.read(bytes)).on("error", () => {}).on("close", () => this.broke());
  }

  write(bytes) { this.lastWrite = Date.now(); this.socket.write(bytes); }

  /** §2.2. */
  hello() {
    this.link += 1;
    this.told.credit = this.credit();
    return control(HELLO, Buffer.from("NA\x01\x00\x00\x00\x00\x00"), this.session, this.token, u32(this.link),
      u64(this.received), u64(this.credit()), u32(this.maxMessages), u64(this.hold), u32(this.maxSize),
      u32(this.interval), u32(this.timeout));
  }

  /** ACK, PING or PONG, with the numbers of the moment. */
  report(type, ...nonce) {
    this.told = { consumed: this.consumed, credit: this.credit() };
    this.untold = null;
    return control(type, ...nonce, u64(this.told.consumed), u64(this.told.credit));
  }

  // Reading

  read(bytes) {
    this.lastRead = Date.now();
    this.chunks.push(bytes);
    if ((this.missing -= bytes.length) > 0) return;
    this.input = Buffer.concat([this.input, ...this.chunks.splice(0)]);
    try {
      while ((this.missing = this.length() - this.input.length) <= 0 && !this.socket.destroyed) {
        const [type, length] = this.header();
        const body = this.input.subarray(4, 4 + length);
        this.input = this.input.subarray(4 + length);
        this.frame(type, body);
      }
    } catch (fault) { // §3.5
      this.fault = fault.message;
      if (this.isUp) this.write(control(CLOSE, u16(5)));
      this.forget();
      this.socket.destroySoon();
    }
  }

  /** §2.1. */
  header() {
    const word = this.input.readUInt32BE(0);
    return word >>> 31 ? [word >>> 24 & 0x7f, word & 0xffffff] : [MESSAGE, word];
  }

  /** How many bytes the next frame has, or its header. */
  length() {
    if (this.input.length < 4) return 4;
    const [type, length] = this.header();
    must(type !== 0 && (type <= MOVE || type >= 0x40), `a frame of type ${type}`);
    must(length <= (type === MESSAGE ? this.maxSize : type === PART ? LONGEST_PART : LONGEST_BODY), "a frame too long");
    must(this.isUp || type === HELLO || type === REFUSE, "no answer to HELLO");
    return 4 + length;
  }

  frame(type, body) {
    if (!this.isUp) return type === HELLO ? this.answered(body) : this.refused(body);
    must(!this.isFirst || type === ACK || type === CLOSE, "the first frame is no ACK");
    this.isFirst = false;
    switch (type) {
      case MESSAGE: this.message(body); break;
      case PART: this.part(body); break;
      case ACK: this.hear(body); break;
      case PONG: this.hear(body.subarray(8)); break;
      case PING:
        this.hear(body.subarray(8));
        this.counts.pings += 1;
        this.write(this.report(PONG, body.subarray(0, 8)));
        break;
      case ASK: this.asks.push(this.received); this.tell(); break;
      case CLOSE: this.peerCloses(body.readUInt16BE(0)); break;
      case HELLO: case REFUSE: must(false, "a second greeting");
    }
    this.pump();
  }

  /** §2.3, §3.2 and §3.3. */
  answered(body) {
    const [session, token] = [Buffer.from(body.subarray(8, 24)), Buffer.from(body.subarray(24, 40))];
    const [received, credit] = [readU64(body, 44), readU64(body, 52)];
    const isResumed = session.equals(this.session);
    if (isResumed) {
      must(received >= this.heard.consumed && received <= this.begun && credit >= this.heard.credit, "impossible numbers");
      this.next = received;
      this.nextCost = this.confirmedCost + cost(...this.kept.slice(0, received - this.heard.consumed));
    } else {
      this.counts.redelivered += this.begun - this.heard.consumed;
      this.count();
    }
    Object.assign(this, { session, token, isUp: true });
    this.heard.credit = credit;
    this.peer = { maxMessages: body.readUInt32BE(60), hold: readU64(body, 64), timeout: body.readUInt32BE(80) };
    this.counts.links += 1;
    this.counts.resumed += Number(isResumed);
    this.write(Buffer.concat([this.report(ACK), this.report(PING, u64(this.link))]));
    this.pump();
  }

  /** §2.4. */
  refused(body) {
    this.refusal = body.readUInt16BE(0);
    if (this.refusal === 6) this.confirm(Math.min(readU64(body, 2), this.begun));
    if ([2, 3, 6, 8].includes(this.refusal)) this.forget();
    this.isOver = this.refusal === 6 && this.isClosing;
    this.socket.end();
  }

  /** §5: the body of a message, or the last piece of a large one. */
  message(body) {
    if (this.large) {
      body = Buffer.concat([...this.large.pieces, body]);
      must(body.length === this.large.length, "pieces that do not add up");
      this.large = null;
    }
    must(this.heardClose === null, "a message behind CLOSE");
    this.received += 1;
    this.receivedCost += cost(body);
    if (!this.isClosing) this.inbox.push(body); // §7.1: who closes discards
    if (!this.takeEvery) this.take();
  }

  part(body) {
    must(body.length, "an empty PART");
    if (this.large) return void this.large.pieces.push(body);
    this.large = { length: body.readUInt32BE(0), pieces: [body.subarray(4)] };
    must(this.large.length <= this.maxSize, "a message too long");
  }

  /** The application takes one message. */
  take() {
    const message = this.inbox.shift();
    if (message === undefined) return;
    if (this.older) { this.older -= 1; this.olderCost -= cost(message); } // §3.3
    else if (this.consumed < this.received) { this.consumed += 1; this.consumedCost += cost(message); }
    this.taken.push(message);
    this.lastTaken = Date.now();
    this.untold ??= this.lastTaken;
    this.tell();
    this.onTaken?.();
  }

  /** §4: ACK by (a) and (d), and by (e) from `tick`. */
  tell(isDue = false) {
    if (!this.isUp || this.saidClose) return;
    const before = this.asks.length;
    this.asks = this.asks.filter((mark) => mark > this.consumed && !this.isClosing);
    const isMany = this.consumed - this.told.consumed >= Math.max(1, this.maxMessages / 4);
    const isMuch = this.credit() - this.told.credit >= Math.min(this.window, this.peer.hold) / 4;
    if (isDue || isMany || isMuch || this.asks.length < before) this.write(this.report(ACK));
  }

  hear(body) {
    const [consumed, credit] = [readU64(body, 0), readU64(body, 8)];
    must(consumed >= this.heard.consumed && credit >= this.heard.credit && consumed <= this.begun, "impossible numbers");
    this.confirm(consumed);
    this.heard.credit = credit;
  }

  confirm(consumed) {
    this.confirmedCost += cost(...this.kept.splice(0, Math.max(0, consumed - this.heard.consumed)));
    this.heard.consumed = Math.max(consumed, this.heard.consumed);
  }

  // Sending

  send(message) { this.kept.push(message); this.pump(); }

  /** §4. */
  mayBegin() {
    return this.nextCost < this.heard.credit && this.next - this.heard.consumed < this.peer.maxMessages
      && this.nextCost - this.confirmedCost < this.hold;
  }

  pump() {
    if (!this.isUp || this.saidClose || this.socket.destroyed) return;
    let message;
    while (this.socket.writableLength < 65536) {
      if (!this.frames.length) {
        message = this.kept[this.next - this.heard.consumed];
        if (message === undefined || !this.mayBegin()) break;
        this.frames = cut(message);
        this.begun = Math.max(this.begun, this.next += 1);
        this.nextCost += cost(message);
      }
      this.write(this.frames.shift());
    }
    if (this.frames.length) return;
    const isAll = this.kept.length === this.next - this.heard.consumed;
    this.counts.waits += Number(!isAll && !this.mayBegin());
    if (this.heardClose !== null ? isAll || !this.mayBegin() : this.isClosing && isAll) this.sayClose();
  }

  // Ending (§7)

  close() { this.isClosing = true; this.inbox = []; this.pump(); }

  sayClose() {
    this.saidClose = true;
    const code = this.isClosing ? 0 : this.heardClose;
    this.write(Buffer.concat([this.report(ACK), control(CLOSE, u16(code))]));
    if (this.heardClose !== null) this.leave();
  }

  peerCloses(code) {
    this.closedWith = code;
    if (code === 2) return void this.socket.destroy();
    if (code === 3 || code === 5) { this.forget(); return void this.socket.destroy(); }
    this.heardClose = code;
    if (!this.isClosing) [this.consumed, this.consumedCost] = [this.received, this.receivedCost];
    if (this.saidClose) this.leave();
  }

  leave() { this.isOver = true; this.socket.end(); }

  broke() {
    this.isUp = false;
    this.isOver ||= this.heardClose !== null && (!this.isClosing || !this.kept.length); // §7.3
    if (!this.isOver) return void setTimeout(() => this.dial(), this.backOff);
    clearInterval(this.clock);
    this.taken.push(...this.inbox); // who answers delivers
    this.end();
  }

  /** §6, and rule (e) of §4. */
  tick() {
    const now = Date.now();
    if (this.takeEvery && now - (this.lastTaken ?? 0) >= this.takeEvery) this.take();
    if (now - this.lastRead >= this.timeout || (this.isFirst && now - this.dialled >= this.openTimeout))
      this.socket.destroy();
    if (!this.isUp || this.isOver) return;
    if (this.untold && now - this.untold >= 200) this.tell(true);
    if (now - this.lastWrite >= Math.min(this.interval, this.peer.timeout / 3) / 2) this.write(this.report(PING, u64(now)));
  }
}

const digest = (message) => [message.length, createHash("sha256").update(message).digest("hex").slice(0, 16)];

async function main(host, port, plan) {
  const { send, expect, ...options } = JSON.parse(plan);
  const client = new Client(host, Number(port), options);
  client.onTaken = () => { if (client.taken.length === expect) client.close(); };
  send.forEach((length, number) => client.send(Buffer.alloc(length, `${number}.`)));
  if (expect === 0) client.close();
  await client.ended;
  const { counts, taken, kept, closedWith, fault, refusal } = client;
  console.log(JSON.stringify({ ...counts, taken: taken.map(digest), unconfirmed: kept.length, closedWith, fault, refusal }));
}

if (process.argv.length > 2) await main(...process.argv.slice(2));
