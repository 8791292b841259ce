"""The message bus upon RabbitMQ: AMQP 0-9-1 through txAMQP, hardened.

bus         AMQPBus, the one name for others
link        connects, and connects again
session     what is declared and consumed on one connection
client      one connection: login, frames, heartbeats, its end
channel     calls that wait for a reply
contents    messages put together from frames
frames      bytes cut into frames, and back
codec       fields and tables to bytes, and back
spec        what AMQP 0-9-1 says
brokers     URLs and endpoints
reasons     why it does not work, in one sentence
"""
