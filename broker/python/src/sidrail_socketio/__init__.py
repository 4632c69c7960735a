"""Client managers for python-socketio that report to sidrail-broker which rooms their pod needs.

On a plain Redis they behave as ``RedisManager`` and ``AsyncRedisManager``::

    from sidrail_socketio import SidrailManager

    socketio = SocketIO(app, client_manager=SidrailManager("redis://broker:6379", channel="flask-socketio"))
"""
from .async_manager import AsyncSidrailManager
from .manager import SidrailManager

__all__ = ["AsyncSidrailManager", "SidrailManager"]
__version__ = "0.1.0"
