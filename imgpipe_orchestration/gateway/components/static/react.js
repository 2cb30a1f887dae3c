// The components under React, with the documents' names and props:
//   <SmartImage mediaId={mediaId} size="thumbnail" alt="Profile" backgroundOption="removed"
//               preferredFormats={["avif", "webp", "jpeg", "png"]} showAIData={true} />
//   <AIAnalysisDisplay mediaId={mediaId} showStyle={true} showColors={true} showQuality={true} showMood={true} />
// Further props: signature, base, width, height, sizes, loading, fit, info, onReady, onFailed; anything else reaches the
// element as it is (className, style, id, ...).

import { createElement, useEffect, useRef } from "react";
import "./smart-image.js";

const flag = (value) => (value === undefined ? undefined : String(Boolean(value)));

export function SmartImage({
  mediaId, backgroundOption, preferredFormats, showAIData, info, onReady, onFailed, className, ...rest
}) {
  const element = useRef(null);
  useEffect(() => {
    const here = element.current;
    const ready = (event) => onReady?.(event.detail);
    const failed = (event) => onFailed?.(event.detail);
    here.addEventListener("ready", ready);
    here.addEventListener("failed", failed);
    return () => {
      here.removeEventListener("ready", ready);
      here.removeEventListener("failed", failed);
    };
  }, [onReady, onFailed]);
  return createElement("smart-image", {
    ...rest,
    ref: element,
    class: className,
    "media-id": String(mediaId),
    "background-option": backgroundOption,
    "preferred-formats": preferredFormats?.join(","),
    "show-ai-data": flag(showAIData),
    info: info === undefined ? undefined : JSON.stringify(info),
  });
}

export function AIAnalysisDisplay({ mediaId, showStyle, showColors, showQuality, showMood, open, className, ...rest }) {
  return createElement("ai-analysis-display", {
    ...rest,
    class: className,
    "media-id": String(mediaId),
    "show-style": flag(showStyle),
    "show-colors": flag(showColors),
    "show-quality": flag(showQuality),
    "show-mood": flag(showMood),
    open: open ? "" : undefined,
  });
}
