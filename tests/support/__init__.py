"""What the tests on real sockets stand on.

One module, one job:

- `faces`: one way to write a scenario for asyncio, uvloop and threads.
- `world`: makes every connection, listener and runtime of a test, writes down what each yielded, and
  checks grammar, account, descriptors and threads when the test is over.
- `grammar`: the grammar of values and the equations of the account.
- `peer`: the original's wire by hand, over plain blocking sockets; knows nothing of netasync.
- `proxy`: a TCP proxy on loopback that cuts, holds and refuses when told.
- `waiting`: waiting for a condition; nothing here sleeps and hopes.
- `process`: what has to be shown in a process of its own.
- `forking`: programs that fork.
- `cancelling`: giving up a wait at a random moment, in every way that asyncio knows.
- `counts`: how often: a few times in every run, the full count with `make soak`.
- `namespace`: a process with names and a loopback of its own.
- `hostile`: what a test about bad input throws at a port.

A test is an `async def` that asks for `world` and is run on each face:

    async def test_what_was_sent_arrives(world):
        client, served, _ = await world.pair()
        await world.send(client, b"hello")
        assert await world.recv(served) == b"hello"

`@pytest.mark.faces("asyncio", "uvloop")` narrows the faces. A test that is a plain function has a
`world` too, and runs its scenarios with `world.run(coroutine)`.
"""
