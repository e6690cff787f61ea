"""How many processes a load takes: a model of the service, fed with what a load test measured.

1. `measured.py` reads what `adrank loadtest --json` wrote, `costs.py` makes of it what one request costs one process
2. `worker.py` is one process as the service is one: requests in one line, one turn at a time; `patience.py` leaves out
   what the deadline or the load does not allow
3. `cluster.py` deals requests to many of them and notes what became of each; simpy keeps the clock
4. `knee.py` finds the highest rate that holds, by the same steps and the same judge as the load test itself
5. `sizing.py` turns that into replicas, cores, memory and Redis, `rehearsal.py` runs the result and takes a zone away
"""
