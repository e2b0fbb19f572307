-- wrk: a mix of GET, POST, slow requests and closing connections; "slow", "closing" and "post" are one in that many.
local count = 0
local body = string.rep("x", 2000)
local slow, closing = tonumber(os.getenv("SLOW_ONE_IN") or "200"), tonumber(os.getenv("CLOSING_ONE_IN") or "10")
local post, pause = tonumber(os.getenv("POST_ONE_IN") or "3"), os.getenv("SLOW_S") or "0.3"
request = function()
  count = count + 1
  local headers = {}
  if count % closing == 0 then headers["Connection"] = "close" end
  if count % slow == 0 then return wrk.format("GET", "/slow?s=" .. pause, headers) end
  if count % post == 0 then return wrk.format("POST", "/echo", headers, body) end
  return wrk.format("GET", "/fast", headers)
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests": %d, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, e.connect, e.read, e.write, e.status, e.timeout))
end
