"""Message buses behind `IMessageBus`."""
