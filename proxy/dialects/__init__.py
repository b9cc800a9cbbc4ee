"""What do the bytes mean? Body formats: what a call asks for, how its streamed answer proceeds, how failures look.

  bounds      what makes a request cost more than its bytes show
  call        Call, UnreadableBody; the protocols Dialect, Watch and Meter that relay works with
  body        the top level of a JSON object with exact spans; splices
  watch       what the watches of all dialects share
  meter       what the meters of all dialects share
  shapes      what of a provider's JSON is made into values at all
  usage       what each provider means by the figures it reports: the one table
  text        what a model said, for counting
  prompt      what a model was told, for counting
  factors     from counted tokens to a model's own, and from bytes to tokens
  resume      a stream that broke, continued by a second one
  resume_event   one event of such a stream; resume_chat, resume_messages: in each of the dialects that have them
  failures    the sentence and the names of a Failure that error bodies are made of
  causes      why a provider would not answer, out of its error body or event
  models      lists of models, as clients of OpenAI and of Anthropic read them
  openai, responses, anthropic, gemini, ollama, plain   the formats

`DIALECTS` finds a dialect by the name that routes, receipts and settings use. May not live here: sockets, clocks, who
may call, where a call goes. Bytes of bodies are looked at and never built anew.
"""

from __future__ import annotations

from proxy.dialects.anthropic import AnthropicCountTokens, AnthropicMessages
from proxy.dialects.call import Dialect
from proxy.dialects.gemini import Gemini
from proxy.dialects.ollama import Ollama
from proxy.dialects.openai import OpenAIChat, OpenAICompletions, OpenAIEmbeddings
from proxy.dialects.plain import Plain
from proxy.dialects.responses import OpenAIResponses

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OpenAIChat(),
        OpenAICompletions(),
        OpenAIResponses(),
        OpenAIEmbeddings(),
        AnthropicMessages(),
        AnthropicCountTokens(),
        Gemini(),
        Ollama(),
        Plain(),
    )
}
