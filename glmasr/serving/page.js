// The microphone in, over /v1/stream to the server and its captions back, into the page's panel. Text is set as text.
(() => {
  const RECORDER = `registerProcessor("recorder", class extends AudioWorkletProcessor {
    constructor() { super(); this.held = new Int16Array(Math.round(sampleRate / 10)); this.count = 0; }
    process([[samples]]) {
      for (const sample of samples || []) {
        this.held[this.count++] = Math.max(-1, Math.min(1, sample)) * 32767;
        if (this.count === this.held.length) { this.port.postMessage(this.held.slice().buffer); this.count = 0; }
      }
      return true;
    }
  });`;
  const MOST_BEHIND = 4 << 20;
  let now = null;

  const part = name => document.querySelector(`#captions .${name}`);
  const say = text => { part("state").textContent = text; };
  const clock = seconds => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

  function line(kind, seconds, text) {
    const [item, time, span] = ["li", "time", "span"].map(name => document.createElement(name));
    item.className = kind; time.textContent = clock(seconds); span.textContent = text;
    item.append(time, span);
    part("partial")?.remove();
    part("lines").append(item);
    part("lines").scrollTop = part("lines").scrollHeight;
  }

  function heard(message, session) {
    if (message.type === "ready") { session.source.connect(session.node); say("Listening … 正在听"); }
    if (message.type === "partial" || message.type === "final") line(message.type, message.start, message.text);
    if (message.type === "alert") line("alert", message.start, `⚠ ${message.rule}: ${message.heard || message.phrase}`);
    if (message.type === "error") session.trouble = message.message;
  }

  function loudness(samples) {
    let most = 0;
    for (const sample of new Int16Array(samples)) most = Math.max(most, Math.abs(sample));
    part("level").value = most / 32767;
  }

  function release(session) {
    session.node?.port.close();
    session.stream?.getTracks().forEach(track => track.stop());
    if (session.context && session.context.state !== "closed") session.context.close();
    if (part("level")) part("level").value = 0;
  }

  function stop(session) {
    release(session);
    if (session.socket?.readyState === WebSocket.OPEN) session.socket.send('{"type": "end"}');
  }

  function over(session, text) {
    release(session);
    now = null;
    document.querySelector("#captions").classList.remove("on");
    part("toggle").textContent = "Start 开始";
    say(text);
  }

  async function start() {
    const session = now = {};
    document.querySelector("#captions").classList.add("on");
    part("toggle").textContent = "Stop 停止";
    try {
      if (!navigator.mediaDevices) throw new Error("browsers give a microphone to https pages and to localhost only");
      const audio = {channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false};
      session.stream = await navigator.mediaDevices.getUserMedia({audio});
      session.context = new AudioContext();
      const module = URL.createObjectURL(new Blob([RECORDER], {type: "text/javascript"}));
      await session.context.audioWorklet.addModule(module);
      URL.revokeObjectURL(module);
    } catch (error) {
      return over(session, `No microphone: ${error.message}`);
    }
    session.source = session.context.createMediaStreamSource(session.stream);
    session.node = new AudioWorkletNode(session.context, "recorder");
    const socket = session.socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/v1/stream`);
    socket.onopen = () => socket.send(JSON.stringify({
      sample_rate: session.context.sampleRate,
      language: (document.querySelector("#language input")?.value || "").split(" · ")[1] || null,
      gain: document.querySelector("#gain input")?.checked ?? null,
    }));
    session.node.port.onmessage = ({data}) => {
      if (socket.readyState !== WebSocket.OPEN) return;
      if (socket.bufferedAmount > MOST_BEHIND) { session.trouble = "the network or the server is too slow"; stop(session); return; }
      loudness(data);
      socket.send(data);
    };
    socket.onmessage = ({data}) => heard(JSON.parse(data), session);
    socket.onclose = ({code, reason}) =>
      over(session, session.trouble || (code === 1000 ? "Stopped 已停止" : reason || "The connection was lost 连接断开"));
    say("Connecting … 正在连接");
  }

  document.addEventListener("click", event => {
    if (!event.target.closest?.("#captions .toggle")) return;
    if (now) stop(now); else { part("lines").replaceChildren(); start(); }
  });
})();
