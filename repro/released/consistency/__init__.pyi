from .format import ConsistencyFormat as ConsistencyFormat
